"""SLEB's order and Wanda's masks agree with brute force.

The models have DeepStack, layer types and padding.
"""

import json

import numpy as np
import pytest
import torch
from conftest import L, tiny
from torch import nn

from interlace.baselines.blocks import (
    angular_distances,
    angular_plan,
    last_layers_plan,
    shortgpt_plan,
)
from interlace.baselines.compensation import compensate_magnitude, replace_by_linear
from interlace.baselines.sleb import round_losses, sleb_plan, sleb_search
from interlace.baselines.sparsity import magnitude_, prune_2_4, two_of_four, wanda_
from interlace.core.errors import BadInput
from interlace.method.decoder import find_decoder, layer_inputs, places
from interlace.method.layer_scores import LayerScores
from interlace.method.selection import Plan
from interlace.method.surgery import prune, pruned_by

SOME = ["qwen3-vl", "gemma3", "smolvlm", "llama"]


def labelled(inputs):
    return [dict(inputs, labels=inputs["input_ids"])]


def state(model):
    d = find_decoder(model)
    return (
        model.config.to_dict(),
        [v for layer in d.layers for _, _, v in places(layer)],
        [id(layer) for layer in d.layers],
    )


def test_pruned_within_the_block_whole_after_it(family):
    model, inputs = tiny(family)
    before = state(model)
    with torch.no_grad():
        whole = model(**inputs).logits
    with pytest.raises(KeyError), pruned_by(model, Plan((2, 5), (), (), L, "by hand", 0.25)):
        assert (
            len(find_decoder(model)) == L - 2
            and model.config.get_text_config(decoder=True).num_hidden_layers == L - 2
        )
        raise KeyError
    assert state(model) == before
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, whole)


@pytest.mark.parametrize("family", SOME)
def test_sleb_finds_the_naive_order(family):
    runs = []
    for naive in (False, True):
        model, inputs = tiny(family)
        runs.append(sleb_search(model, labelled(inputs), 0.5, naive=naive, progress=False))
        assert len(find_decoder(model)) == L - 4
    quick, slow = runs
    assert quick["order"] == slow["order"]
    for a, b in zip(quick["losses"], slow["losses"], strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    assert 0 not in quick["order"] and L - 1 not in quick["order"]
    assert slow["evaluations"] == [(n - 2) * (n - 1) for n in range(L, L - 4, -1)]
    assert quick["evaluations"] == [n + (n - 2) * (n - 1) // 2 for n in range(L, L - 4, -1)]


def test_a_quarter_of_36_layers_costs_half():
    naive, quick = (
        sum(f(n) for n in range(36, 27, -1))
        for f in (lambda n: (n - 2) * (n - 1), lambda n: n + (n - 2) * (n - 1) // 2)
    )
    assert naive / quick > 1.8


def test_an_interrupted_search_goes_on(tmp_path):
    def fresh():
        return tiny("llama")[0]

    batches = labelled(tiny("llama")[1])
    whole = sleb_search(fresh(), batches, 0.5, progress=False)
    sleb_search(fresh(), batches, 0.25, tmp_path / "s.json", progress=False)
    assert json.loads((tmp_path / "s.json").read_text())["order"] == whole["order"][:2]
    model = fresh()
    again = sleb_search(model, batches, 0.5, tmp_path / "s.json", progress=False)
    assert (
        again["order"] == whole["order"]
        and again["evaluations"] == whole["evaluations"]
        and len(find_decoder(model)) == L - 4
    )
    part = sleb_search(
        fresh(), batches, 0.25, tmp_path / "s.json", progress=False
    )  # fewer rounds than the file has: what they cost, not what all did
    assert part["order"] == whole["order"][:2] and part["evaluations"] == whole["evaluations"][:2]
    other = sleb_search(
        tiny("llama", seed=1)[0], batches, 0.25, tmp_path / "s.json", progress=False
    )  # another model: not the same search
    assert (
        other["order"]
        == sleb_search(tiny("llama", seed=1)[0], batches, 0.25, progress=False)["order"]
    )


def test_sleb_tunes_as_many_as_it_drops():
    assert (
        sleb_plan([5, 4, 9], 12, tune=True).tune == (6, 7, 10)
        and sleb_plan([5, 4], 12).tune == ()
        and sleb_plan([10], 12, tune=True).tune == (11,)
    )


@pytest.mark.parametrize("ratio, why", [(0.95, "cannot remove 7"), (1.5, "ratio 1.5")])
def test_sleb_bad_input(ratio, why):
    with pytest.raises(BadInput, match=why):
        sleb_search(tiny("llama")[0], labelled(tiny("llama")[1]), ratio, progress=False)
    with pytest.raises(BadInput, match="labels"):
        round_losses(tiny("llama")[0], [dict(tiny("llama")[1], labels=torch.full((2, 24), -100))])


def test_two_of_four():
    g = torch.Generator().manual_seed(0)
    score = torch.rand(6, 16, generator=g)
    stays = two_of_four(score).view(6, 4, 4)
    assert (stays.sum(-1) == 2).all()
    groups = score.view(6, 4, 4)
    assert (groups.masked_fill(~stays, 9).amin(-1) >= groups.masked_fill(stays, -9).amax(-1)).all()
    assert two_of_four(torch.ones(1, 4)).tolist() == [[True, True, False, False]]
    with pytest.raises(BadInput, match="multiple of four"):
        two_of_four(torch.ones(2, 6))


def linears(layer):
    return [m for m in layer.modules() if isinstance(m, nn.Linear)]


@pytest.mark.parametrize("family", SOME)
@pytest.mark.parametrize("method", ["wanda", "magnitude"])
# padding has no say
def test_2_4_against_brute_force(family, method):
    (model, inputs), (slow, _) = tiny(family), tiny(family)
    inputs["attention_mask"][1, -5:] = 0
    wanda_(model, [inputs]) if method == "wanda" else magnitude_(model)
    for layer in find_decoder(slow).layers:
        norms, hooks = {}, []
        for m in linears(layer):
            hooks.append(
                m.register_forward_pre_hook(
                    lambda m, a: norms.__setitem__(
                        m, a[0][inputs["attention_mask"].bool()].float().norm(dim=0)
                    )
                )
            )
        with torch.no_grad():
            slow(**inputs)
            for m in linears(layer):
                m.weight.mul_(two_of_four(m.weight.abs() * (norms[m] if method == "wanda" else 1)))
        for h in hooks:
            h.remove()
    whole = tiny(family)[0]
    inside = {id(p) for layer in find_decoder(model).layers for p in layer.parameters()}
    for (n, a), b, w in zip(
        model.named_parameters(), slow.parameters(), whole.parameters(), strict=True
    ):
        assert torch.equal(a, b), n
        if id(a) not in inside:
            assert torch.equal(a, w), n
    for layer in find_decoder(model).layers:
        for m in linears(layer):
            assert ((m.weight.view(m.out_features, -1, 4) == 0).sum(-1) == 2).all()


def test_wanda_holds_one_layers_activations():
    "The memory kept between layers does not grow with depth"
    import gc

    gc.freeze()  # what was there before is not looked through again and again
    model, inputs = tiny("llama")
    alive, hooks = [], []
    for layer in find_decoder(model).layers:
        hooks.append(
            layer.register_forward_hook(
                lambda m, a, o: alive.append(
                    sum(
                        t.numel()
                        for t in gc.get_objects()
                        if torch.is_tensor(t) and t.shape[:2] == (2, 24) and t.dim() == 3
                    )
                )
            )
        )
    try:
        prune_2_4(model, [inputs], progress=False)
    finally:
        gc.unfreeze()
    assert max(alive) and max(alive[len(alive) // 2 :]) <= max(alive[: len(alive) // 2]) * 1.5


def test_2_4_bad_input():
    with pytest.raises(BadInput, match="no calibration batch"):
        prune_2_4(tiny("llama")[0])
    with pytest.raises(BadInput, match="no method"):
        prune_2_4(tiny("llama")[0], method="random")


REPAIRS = [replace_by_linear, compensate_magnitude]


@pytest.mark.parametrize("family", ["qwen3-vl", "llama"])
@pytest.mark.parametrize("repair", REPAIRS)
def test_a_repaired_model_is_an_ordinary_one(repair, family, tmp_path):
    "It loads with transformers alone, and is closer to the whole model than the pruned one"
    (model, inputs), plan = tiny(family), Plan((3, 4, 6), (), (), L, "by hand", 3 / L)
    whole = states(model, inputs)
    repair(model, plan, [inputs])
    assert len(find_decoder(model)) == L - 3
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)
    repaired, pruned = (states(m, inputs) for m in (model, prune(tiny(family)[0], plan)))
    if repair is replace_by_linear:
        for new, old in ((3, 5), (4, 7)):
            near, far = ((s[new] - whole[old]).norm() for s in (repaired, pruned))
            assert near < far
    else:
        ratio = (whole[7].norm(dim=-1) / repaired[4].norm(dim=-1)).mean()
        assert abs(ratio - 1) < 0.01


def states(model, inputs):
    "What enters each layer, without padding"
    found, real = {}, inputs["attention_mask"].bool()
    with torch.no_grad(), layer_inputs(model, lambda i, x: found.update({i: x[real]})):
        model(**inputs)
    return found


@pytest.mark.parametrize(
    "repair, why",
    [
        (replace_by_linear, "are changed before they are added"),
        (compensate_magnitude, "makes image features is not known"),
    ],
)
def test_a_norm_behind_a_part_is_refused_before_anything_changes(repair, why):
    model, inputs = tiny("gemma3")
    model.train()
    before = {n: p.clone() for n, p in model.named_parameters()}
    with pytest.raises(BadInput, match=why):
        repair(model, Plan((2,), (), (), L, "by hand", 1 / L), [inputs])
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert model.training and len(find_decoder(model)) == L
    with pytest.raises(BadInput, match="no calibration batch"):
        repair(model, Plan((2,), (), (), L, "by hand", 1 / L), [])


@pytest.mark.parametrize("repair", REPAIRS)
def test_without_a_gap_nothing_changes(repair):
    model, inputs = tiny("llama")
    with torch.no_grad():
        before = model(**inputs).logits
        repair(model, Plan.dense(L), [inputs])
        assert torch.equal(model(**inputs).logits, before)


def test_angles_ignore_padding_on_either_side():
    model, inputs = tiny("llama")
    ids = inputs["input_ids"][:1, :10]
    ones, pad = torch.ones_like(ids), torch.zeros_like(ids[:, :3])
    found = [
        angular_distances(model, [dict(input_ids=i, attention_mask=m)], 2)
        for i, m in (
            (ids, ones),
            (torch.cat([ids, pad], 1), torch.cat([ones, pad], 1)),
            (torch.cat([pad, ids], 1), torch.cat([pad, ones], 1)),
        )
    ]
    assert len(found[0]) == L - 1
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, atol=1e-5, rtol=1e-4)


def test_plans_of_other_papers():
    assert angular_plan(np.array([0.3, 0.1, 0.1, 0.0]), 6).drop == (1, 2, 3)
    assert last_layers_plan(8, 0.25).drop == (6, 7)
    similarity = np.linspace(0.1, 0.7, 7)
    scores = LayerScores.from_arrays({s: similarity[: 8 - s] for s in (1, 2, 3)}, n_layers=8)
    plan = shortgpt_plan(scores, 0.25, tune=True)
    assert (plan.drop, plan.tune, plan.strategy) == ((5, 6), (7,), "shortgpt-ft")
    assert shortgpt_plan(scores, 0.99).kept == (7,)

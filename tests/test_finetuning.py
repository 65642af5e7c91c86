"""Frozen layers stay bit-identical and tuned ones change; resumed = uninterrupted.

Gradient checkpointing recomputes only from the first tuned layer upwards.
"""

import copy
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen3VLForConditionalGeneration

from interlace.baselines.distillation import distill_states
from interlace.core.errors import BadInput
from interlace.data.conversations import IGNORE, Collator
from interlace.method import finetuning
from interlace.method.checkpoints import claim_checkpoints, last_checkpoint
from interlace.method.decoder import find_decoder
from interlace.method.finetuning import _check_finite, _Parts, checkpoint_from, finetune
from interlace.method.saving import save, spell_for_engines
from interlace.method.selection import Plan
from interlace.method.surgery import freeze_for, prune
from interlace.nano.model import Muon, nano_config, nano_model, nano_processor
from interlace.nano.samples import conversation

PLAN = Plan(drop=(2, 5), tune=(3, 6), anchor=(4, 7), n_layers=8, strategy="by hand", ratio=0.25)
QUICK = dict(batch_size=4, accumulation=1, learning_rate=1e-3, turns=5, log_steps=1, progress=False)


@pytest.fixture(scope="module")
def processor():
    return nano_processor()


def pruned(processor, dtype=torch.float32):
    return prune(nano_model(processor=processor, layers=8).to(dtype), PLAN)


def data(n=16):
    return [conversation("objects", "train", i) for i in range(n)]


def tuned_names(model):
    return {
        n
        for n, _ in model.named_parameters()
        if any(f"language_model.layers.{PLAN.kept.index(i)}." in n for i in PLAN.tune)
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
# in bfloat16 a norm's weight near 1 moves only by steps of 1/128
def test_frozen_is_bit_identical_and_tuned_moves(processor, dtype, tmp_path):
    model = pruned(processor, dtype)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    record = finetune(model, PLAN, data(), processor, tmp_path / "m", **QUICK)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved <= tuned_names(model)
    still = tuned_names(model) - moved
    assert not still if dtype == torch.float32 else all(n.endswith("norm.weight") for n in still)
    assert all(p.dtype == dtype for p in model.parameters())
    saved = load_file(tmp_path / "m" / "model.safetensors")
    assert all(torch.equal(saved[n], p) for n, p in model.named_parameters() if n in saved)
    assert (
        record["trained"] == sum(before[n].numel() for n in tuned_names(model))
        and len(record["loss"]) == record["steps"] == 4
    )
    assert json.loads((tmp_path / "m" / "training.json").read_text())["loss"] == record["loss"]
    assert not (tmp_path / "m.checkpoints").exists()


def test_only_tuned_parameters_are_in_the_optimizer(processor, tmp_path):
    model = pruned(processor)
    from transformers import Trainer

    seen, create = [], Trainer.create_optimizer

    def watch(self, *a, **k):
        out = create(self, *a, **k)
        seen.append({id(p) for g in self.optimizer.param_groups for p in g["params"]})
        return out

    Trainer.create_optimizer = watch
    try:
        finetune(model, PLAN, data(4), processor, tmp_path / "m", **QUICK)
    finally:
        Trainer.create_optimizer = create
    assert seen[-1] == {id(p) for n, p in model.named_parameters() if n in tuned_names(model)}


def test_the_backward_pass_ends_at_the_first_tuned_layer(processor):
    model = freeze_for(pruned(processor), PLAN)
    entered = {}
    for i, layer in enumerate(find_decoder(model).layers):
        layer.register_forward_pre_hook(
            lambda m, a, k, i=i: entered.__setitem__(
                i, (a[0] if a else k["hidden_states"]).requires_grad
            ),
            with_kwargs=True,
        )
    model(**Collator(processor, 5)(data(2))).loss.backward()
    first = PLAN.kept.index(3)
    assert entered == {i: i > first for i in range(6)}


def test_gradient_checkpointing_from_the_first_tuned_layer_up_and_same_gradients(processor):
    batch, grads = Collator(processor, 5)(data(2)), []
    for checkpointing in (False, True):
        model = freeze_for(pruned(processor), PLAN).train()
        if checkpointing:
            above = checkpoint_from(model, PLAN)
            assert [any(layer is a for a in above) for layer in find_decoder(model).layers] == [
                False,
                False,
                True,
                True,
                True,
                True,
            ]
        runs = {}
        for i, layer in enumerate(find_decoder(model).layers):
            layer.mlp.register_forward_pre_hook(
                lambda m, a, i=i: runs.__setitem__(i, runs.get(i, 0) + 1)
            )
        entered = []
        find_decoder(model).layers[2].register_forward_pre_hook(
            lambda m, a, k: entered.append((a[0] if a else k["hidden_states"]).requires_grad),
            with_kwargs=True,
        )
        model(**batch, use_cache=False).loss.backward()
        assert entered[0] is False  # the backward pass goes no deeper
        assert runs == {i: 2 if checkpointing and i >= 2 else 1 for i in range(6)}
        grads.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=False))


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from interlace.method.finetuning import finetune
from interlace.nano.model import nano_model, nano_processor
from interlace.nano.samples import conversation
from interlace.method.selection import Plan
from interlace.method.surgery import prune
plan = Plan(drop=(2, 5), tune=(3, 6), anchor=(4, 7), n_layers=8, strategy="by hand", ratio=.25)
processor = nano_processor()
pruned = prune(nano_model(processor=processor, layers=8), plan)
data = [conversation("objects", "train", i) for i in range(64)]
finetune(pruned, plan, data, processor, sys.argv[1], batch_size=4, accumulation=1,
         learning_rate=1e-3, turns=5, log_steps=1, checkpoint_steps=2, progress=False)
"""


def run(out, **kw):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        **kw,
    )


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    whole = run(tmp_path / "whole")
    assert whole.wait(240) == 0, whole.stderr.read().decode()[-2000:]
    killed = run(tmp_path / "killed")
    checkpoints = tmp_path / "killed.checkpoints"
    for _ in range(2400):
        if (
            last_checkpoint(checkpoints) is not None
            and int(last_checkpoint(checkpoints).name.split("-")[1]) >= 4
        ):
            break
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed").exists()  # nothing half-written
    (checkpoints / "checkpoint-999").mkdir()  # a checkpoint that was cut short
    (checkpoints / "checkpoint-999" / "model.safetensors").write_bytes(b"half")
    again = run(tmp_path / "killed")
    assert again.wait(240) == 0, again.stderr.read().decode()[-2000:]
    record, other = (
        json.loads((tmp_path / n / "training.json").read_text()) for n in ("killed", "whole")
    )
    assert record["resumed_at"] in range(4, 16) and other["resumed_at"] is None
    a, b = (load_file(tmp_path / n / "model.safetensors") for n in ("killed", "whole"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    assert [s for s, _ in record["loss"]] == [s for s, _ in other["loss"]] and record["loss"][
        -1
    ] == other["loss"][-1]


def test_other_settings_start_anew(processor, tmp_path):
    stale = tmp_path / "m.checkpoints" / "checkpoint-3"
    stale.mkdir(parents=True)
    (stale / "trainer_state.json").write_text('{"global_step": 3}')
    (tmp_path / "m.checkpoints" / "settings.json").write_text('"another mark"')
    assert (
        finetune(pruned(processor), PLAN, data(4), processor, tmp_path / "m", **QUICK)["resumed_at"]
        is None
    )
    assert (
        tmp_path / "m.checkpoints-another mark" / "checkpoint-3" / "trainer_state.json"
    ).exists()  # moved aside, not deleted


@pytest.mark.parametrize("other", ["data", "weights"])
def test_other_data_or_weights_start_anew(other, processor, tmp_path, monkeypatch):
    "A checkpoint of a run with the same settings but other data or weights is not used"
    marks, mark_of = [], finetuning.run_mark
    monkeypatch.setattr(finetuning, "run_mark", lambda *a: marks.append(mark_of(*a)) or marks[-1])
    broken = dict(data(1)[0], images=[dict(bytes=b"no image", path=None)])
    for seed, n in ((42, 4), (7, 4) if other == "weights" else (42, 5)):
        model = prune(nano_model(processor=processor, layers=8, seed=seed), PLAN)
        with pytest.raises(BadInput, match="cannot be decoded"):
            finetune(model, PLAN, [*data(n), broken], processor, tmp_path / "m", **QUICK)
    assert len(marks) == 2 and marks[0] != marks[1]


def test_with_gradient_checkpointing_the_same_weights(processor, tmp_path):
    for name, on in (("plain", False), ("checkpointed", True)):
        finetune(
            pruned(processor),
            PLAN,
            data(8),
            processor,
            tmp_path / name,
            gradient_checkpointing=on,
            **QUICK,
        )
    a, b = (load_file(tmp_path / n / "model.safetensors") for n in ("plain", "checkpointed"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_step_in_parts_is_the_step_as_a_whole(processor, tmp_path):
    "Samples of very different lengths in several batches give the same weights up to rounding"
    samples = [
        conversation(f, "train", i) for i in range(4) for f in ("objects", "text_words", "vast")
    ]
    weights = []
    for parts in (1, 5):
        model = pruned(processor)
        record = finetune(
            model,
            PLAN,
            samples,
            processor,
            tmp_path / f"{parts}",
            **QUICK | dict(batch_size=6, parts=parts, bfloat16=False),
        )
        weights.append(
            torch.cat([p.flatten() for n, p in model.named_parameters() if n in tuned_names(model)])
        )
        assert record["steps"] == 2 and record["parts"] == parts
    start = torch.cat(
        [
            p.flatten()
            for n, p in pruned(processor).named_parameters()
            if n in tuned_names(pruned(processor))
        ]
    )
    moved = (weights[0] - start).abs().max()
    assert all((w - weights[0]).abs().max() < 1e-3 * moved for w in weights[1:])


def test_a_sorted_part_is_padded_to_its_own_longest_sample(processor):
    samples = [conversation(f, "train", i) for i in range(3) for f in ("vast", "text_words")]
    collator = Collator(processor, 5)
    step = _Parts(collator, 2, lambda batch, samples: batch)(samples)
    whole = collator(samples)
    assert [b["input_ids"].shape[0] for b in step["parts"]] == [3, 3]
    assert sorted(collator.lengths(samples)) == sorted(
        int(m.sum()) for b in step["parts"] for m in b["attention_mask"]
    )
    assert sum(b["input_ids"].numel() for b in step["parts"]) < 0.8 * whole["input_ids"].numel()
    assert int((step["labels"] != IGNORE).sum()) == int((whole["labels"] != IGNORE).sum())


def mark_of(threads):
    code = (
        "import sys, torch; torch.set_num_threads(int(sys.argv[1]))\nfrom"
        " interlace.method.checkpoints import run_mark\nfrom interlace.nano.model import"
        " nano_model, nano_processor\nprint(run_mark(nano_model(processor=nano_processor(),"
        " layers=2), [], dict(a=1)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(threads)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )
    return out.stdout.split()[-1]


def test_the_mark_of_a_run_does_not_depend_on_threads():
    assert mark_of(1) == mark_of(2)


def test_checkpoints_of_another_run_are_moved_aside_and_taken_up_again(tmp_path, capsys):
    folder = tmp_path / "m.checkpoints"
    claim_checkpoints(folder, "one")
    (folder / "checkpoint-5").mkdir()
    claim_checkpoints(folder, "two")
    assert (
        not (folder / "checkpoint-5").exists()
        and "moved to m.checkpoints-one" in capsys.readouterr().err
    )
    claim_checkpoints(folder, "one")
    assert (folder / "checkpoint-5").exists() and (tmp_path / "m.checkpoints-two").exists()


def test_a_folder_that_is_not_ours_is_refused_and_kept(processor, tmp_path):
    mine = tmp_path / "m.checkpoints" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("three years of work")
    with pytest.raises(BadInput, match="not a folder of checkpoints"):
        finetune(pruned(processor), PLAN, data(4), processor, tmp_path / "m", **QUICK)
    assert mine.read_text() == "three years of work"


@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_in_another_precision_is_what_transformers_saves(tied, processor, tmp_path):
    "The files have the same keys and the same bytes; tied embeddings are stored once"
    config = nano_config(processor=processor, layers=4)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied
    model = Qwen3VLForConditionalGeneration._from_config(config)
    save(model, processor, tmp_path / "ours", torch.bfloat16)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "stock")
    ours, stock = (
        json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("ours", "stock")
    )
    assert ours == spell_for_engines(stock)  # the older spellings are added
    for name in ("model.safetensors", "generation_config.json"):
        assert (tmp_path / "ours" / name).read_text("latin-1") == (
            tmp_path / "stock" / name
        ).read_text("latin-1"), name
    assert ("lm_head.weight" in load_file(tmp_path / "ours" / "model.safetensors")) is not tied


def test_training_that_went_wrong_says_so(processor, tmp_path):
    "A loss that is not finite ends the run at its step, and nothing is saved"
    model = pruned(processor)
    with torch.no_grad():
        find_decoder(model).layers[4].mlp.down_proj.weight[0, 0] = float("inf")
    with pytest.raises(BadInput, match="step 1: the loss is (nan|inf)"):
        finetune(model, PLAN, data(8), processor, tmp_path / "m", **QUICK)
    assert not list(tmp_path.iterdir()), "neither a model nor an empty folder of checkpoints"


def test_weights_that_are_no_numbers_are_not_saved(processor):
    model = freeze_for(pruned(processor), PLAN)
    _check_finite(model, 3)
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad)[0] = float("nan")
    with pytest.raises(BadInput, match="step 3: 1 trained weights are not finite"):
        _check_finite(model, 3)


def test_the_last_step_is_logged(processor, tmp_path):
    record = finetune(
        pruned(processor), PLAN, data(20), processor, tmp_path / "m", **QUICK | dict(log_steps=3)
    )
    assert [step for step, _ in record["loss"]] == [1, 3, 5] and record["steps"] == 5


@pytest.mark.parametrize(
    "wrong",
    [
        dict(epochs=0),
        dict(epochs=-1.0),
        dict(learning_rate=float("nan")),
        dict(learning_rate=0),
        dict(seed=2**32),
        dict(batch_size=0),
        dict(batch_size=2.5),
        dict(batch_size=True),
        dict(warmup_ratio=1.0),
        dict(max_grad_norm=float("inf")),
    ],
)
def test_settings_that_no_training_can_have(wrong, processor, tmp_path):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        finetune(pruned(processor), PLAN, data(4), processor, tmp_path / "m", **QUICK | wrong)


def test_muon_trains_everything_and_its_state_reloads(processor):
    torch.manual_seed(0)
    model = nano_model(processor=processor, layers=2)
    batch, optimizer = Collator(processor, 5)(data(4)), Muon(model)
    covered = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert covered == {id(p) for p in model.parameters()}
    losses = []
    for _ in range(8):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    other = Muon(model)
    other.load_state_dict(optimizer.state_dict())
    assert len(other.state) == len(optimizer.state)


def test_labels_are_the_assistants_tokens(processor):
    samples = [
        conversation(n, "train", i)
        for n in ("objects", "science_balance", "text_fields")
        for i in range(6)
    ]
    batch = Collator(processor, turns=10)(samples)
    for b, s in enumerate(samples):
        labels = batch["labels"][b]
        assert processor.tokenizer.decode(labels[labels != IGNORE]) == "".join(
            t["assistant"] + "<|im_end|>" for t in s["texts"]
        )
    one = Collator(processor, turns=2)(samples[:1])
    assert int(
        (one["input_ids"] == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")).sum()
    ) == 2 * min(2, len(samples[0]["texts"]))


def test_too_long_is_cut_and_pictures_must_fit(processor):
    samples = [conversation("science_balance", "train", i) for i in range(3)]
    whole, cut = (Collator(processor, 5, n)(samples) for n in (512, 80))
    assert cut["input_ids"].shape[1] == 80 and torch.equal(
        whole["input_ids"][:, :80], cut["input_ids"]
    )
    with pytest.raises(BadInput, match="max_length"):
        Collator(processor, 5, 12)(samples)


@pytest.mark.parametrize(
    "case, why",
    [
        ("nothing tuned", "tunes no layer"),
        ("no data", "empty"),
        ("not pruned", "prune it by this plan first"),
        ("corrupt", "cannot be decoded"),
    ],
)
def test_bad_input(case, why, processor, tmp_path):
    model, plan, samples = pruned(processor), PLAN, data(4)
    if case == "nothing tuned":
        plan = Plan(PLAN.drop, (), (), 8, "by hand", 0.25)
    if case == "no data":
        samples = []
    if case == "not pruned":
        model = nano_model(processor=processor, layers=8)
    if case == "corrupt":
        samples[2] = dict(
            samples[2], images=[dict(bytes=b"no image", path=None)], id="objects/train/2"
        )
    with pytest.raises(BadInput, match=why):
        finetune(model, plan, samples, processor, tmp_path / "m", **QUICK)
    assert not (tmp_path / "m").exists()


def test_unwritable_output_is_said_before_training(processor, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="cannot be written"):
        finetune(pruned(processor), PLAN, data(4), processor, tmp_path / "file" / "m", **QUICK)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_of_its_own_is_trained_on_request(tied, processor, tmp_path):
    "As in the authors' code: only where the embeddings do not share its weight"
    config = nano_config("nano-l", processor, layers=4)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied
    for train_head in (False, True):
        torch.manual_seed(0)
        model = Qwen3VLForConditionalGeneration(copy.deepcopy(config))
        plan = Plan((0,), (1,), (2,), 4, "by hand", 0.25)
        before = model.lm_head.weight.detach().clone()
        record = finetune(
            prune(model, plan),
            plan,
            data(8),  # two steps: the first has learning rate 0
            processor,
            tmp_path / f"{train_head}",
            train_head=train_head,
            **QUICK,
        )
        changed = not torch.equal(before, model.lm_head.weight)
        assert changed == (train_head and not tied)
        assert record["train_head"] is train_head
        layer = sum(p.numel() for p in model.model.language_model.layers[0].parameters())
        assert record["trained"] == layer + (before.numel() if changed else 0)


def test_flattened_batches_train_the_same(processor, tmp_path):
    "Without padding, in float32: the same losses and nearly the same weights"
    tuned, losses = [], []
    for flatten in (False, True):
        model = pruned(processor)
        out = tmp_path / f"{flatten}"
        how = QUICK | dict(bfloat16=False, flatten=flatten, batch_size=4)
        record = finetune(model, PLAN, data(16), processor, out, **how)
        losses.append([loss for _, loss in record["loss"]])
        tuned.append(load_file(out / "model.safetensors"))
        assert record["flatten"] is flatten
    assert len(losses[0]) == 4 and losses[1] == pytest.approx(losses[0], abs=2e-5)
    for name, weights in tuned[0].items():
        assert torch.allclose(weights, tuned[1][name], atol=1e-4), name


def test_a_further_objective_belongs_to_the_run(processor, tmp_path):
    "It is in the record, and a run without it does not resume a run with it"
    dense = nano_model(processor=processor, layers=8)
    objective = distill_states(dense, PLAN, 5.0)
    broken = dict(data(1)[0], images=[dict(bytes=b"no image", path=None)])
    how = QUICK | dict(checkpoint_steps=1, bfloat16=False)
    with pytest.raises(BadInput, match="cannot be decoded"):
        samples = [*data(12), broken]
        finetune(
            pruned(processor), PLAN, samples, processor, tmp_path / "m", objective=objective, **how
        )
    record = finetune(pruned(processor), PLAN, data(12), processor, tmp_path / "m", **how)
    assert record["resumed_at"] is None and "objective" not in record
    record = finetune(
        pruned(processor), PLAN, data(4), processor, tmp_path / "n", objective=objective, **how
    )
    assert "weight 5" in record["objective"]


def test_settings_that_a_record_holds_are_refused(processor, tmp_path):
    for wrong, why in (
        (dict(samples=3), "'samples' is what a training finds out"),
        (dict(train_heads=True), "did you mean train_head"),
        (dict(train_head="no"), "it must be true or false"),
    ):
        with pytest.raises(BadInput, match=why):
            finetune(pruned(processor), PLAN, data(4), processor, tmp_path / "m", **QUICK | wrong)
    assert not list(tmp_path.iterdir())

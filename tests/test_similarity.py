"""Scores agree with a direct computation at any batch size, with four states in memory."""

import gc
import weakref

import numpy as np
import pytest
import torch
from conftest import L, tiny

from interlace.core.errors import BadInput
from interlace.method.decoder import decoder_mark, find_decoder, layer_inputs
from interlace.method.layer_scores import SPANS, LayerScores, n_windows
from interlace.method.similarity import _Windows, score_layers


def by_hand(model, inputs):
    "Read every x[i] at the layers' inputs and compute every similarity directly"
    x = {}
    with torch.no_grad(), layer_inputs(model, lambda i, h: x.__setitem__(i, h.float())):
        model(**inputs)
    mask = inputs["attention_mask"].bool()
    return {
        s: np.array(
            [
                [
                    torch.cosine_similarity(x[i][b], x[i + s][b], dim=-1)[mask[b]].mean().item()
                    for i in range(L - s + 1)
                ]
                for b in range(len(mask))
            ]
        )
        for s in SPANS
    }


def test_against_the_plain_way(family):
    model, inputs = tiny(family)
    want = by_hand(model, inputs)
    short, full = (
        score_layers(model, [inputs], last=last, progress=False) for last in (False, True)
    )
    for s in SPANS:
        assert short.per_sample[s].shape == (2, n_windows(L, s)) and full.per_sample[s].shape == (
            2,
            L - s + 1,
        )
        np.testing.assert_allclose(short.per_sample[s], want[s][:, :-1], atol=1e-5)
        np.testing.assert_allclose(full.per_sample[s], want[s], atol=1e-5)


def test_deepstack_additions_are_seen():
    "x[1] is the input of layer 1, after DeepStack's addition; the output of layer 0 differs"
    model, inputs = tiny("qwen3-vl")
    leaves, x = {}, {}
    for i, layer in enumerate(find_decoder(model).layers):
        layer.register_forward_hook(lambda m, a, o, i=i: leaves.__setitem__(i + 1, o))
    with torch.no_grad(), layer_inputs(model, lambda i, h: x.__setitem__(i, h)):
        model(**inputs)
    assert [torch.equal(x[i], leaves[i]) for i in (1, 2, 3, 4, 5)] == [
        False,
        False,
        False,
        True,
        True,
    ]


def test_batch_size_and_padding_do_not_matter():
    "The nano processor pads batches; samples scored one by one have no padding"
    from interlace.data.conversations import calibration_batches
    from interlace.nano.model import nano_model, nano_processor
    from interlace.nano.samples import conversation

    processor = nano_processor()
    model = nano_model(processor=processor, layers=6).eval()
    samples = [
        conversation(n, "calibration", 0)
        for n in ("objects", "diagrams", "text_words", "science_magnets", "chart_pies")
    ]
    scores = [
        score_layers(model, calibration_batches(samples, processor, b), progress=False)
        for b in (1, 2, 5)
    ]
    for other in scores[1:]:
        for s in SPANS:
            np.testing.assert_allclose(other.per_sample[s], scores[0].per_sample[s], atol=1e-5)


def test_only_four_states_are_alive():
    see, refs = _Windows(torch.ones(1, 4), 12, True), []
    for i in range(13):
        x = torch.randn(
            1, 4, 8, dtype=torch.float64
        )  # a dtype that has to be converted, so that `see` holds its own copy
        see(i, x)
        refs.append(weakref.ref(see.alive[i][0]))
        del x
        gc.collect()
        assert (
            sum(r() is not None for r in refs) <= 3
        )  # between layers; the fourth is the one that enters
    assert see.arrays()[3].shape == (1, 10)


def test_a_generator_of_batches_is_fine_and_the_mode_is_kept():
    model, inputs = tiny("llama")
    model.train()
    assert (
        len(score_layers(model, (inputs for _ in range(2)), progress=False)) == 4 and model.training
    )


def test_json_round_trip(tmp_path):
    model, inputs = tiny("llama")
    scores = score_layers(model, [inputs], progress=False, data="a lesson")
    scores.to_json(tmp_path / "scores.json")
    assert (
        LayerScores.from_json(tmp_path / "scores.json")
        == scores
        == LayerScores.from_json(scores.to_json())
    )
    assert scores.about == {"data": "a lesson", "decoder": decoder_mark(model)}


@pytest.mark.parametrize(
    "arrays, why",
    [
        ({1: [0.1] * 7, 2: [0.1] * 6}, "spans"),
        ({1: [0.1] * 7, 2: [0.1] * 6, 3: [0.1] * 4}, "span 3 has 4 windows"),
        ({1: np.ones((2, 7)), 2: np.ones((2, 6)), 3: np.ones((3, 5))}, "different numbers"),
    ],
)
def test_wrong_shapes(arrays, why):
    with pytest.raises(BadInput, match=why):
        LayerScores.from_arrays(arrays, n_layers=8)


def test_no_batches():
    with pytest.raises(BadInput, match="calibration set is empty"):
        score_layers(tiny("llama")[0], [], progress=False)

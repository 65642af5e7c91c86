"""Tests of latency: timings, models left whole by plans, memory by hand, the paper's shapes."""

import csv

import papermill
import pytest
import torch
from conftest import ROOT, tiny

from interlace.core.errors import BadInput
from interlace.evaluation.latency import (
    PAPER_SHAPES,
    latency,
    peak_bytes,
    prefill_flops,
    shaped_model,
    time_once,
    weight_bytes,
)
from interlace.method.decoder import find_decoder
from interlace.method.selection import Plan

PLAN = Plan((3, 5), (), (), 8, "by hand", 0.25)


def one(name):
    "Make a tiny model and one prompt for it"
    model, inputs = tiny(name)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    return model, {
        k: v if k in ("pixel_values", "image_grid_thw") and len(v) != 2 else v[:1]
        for k, v in inputs.items()
    }


def test_variants_take_turns_and_the_model_stays_whole():
    model, inputs = one("llama")
    model.train()
    before = [id(layer) for layer in find_decoder(model).layers]
    got = latency(
        dict(dense=model, pruned=(model, PLAN)), inputs, new_tokens=3, repeats=2, warmup=1
    )
    assert (
        [id(layer) for layer in find_decoder(model).layers] == before
        and model.training
        and model.config.num_hidden_layers == 8
    )
    assert (
        got["dense"]["layers"] == 8
        and got["pruned"]["layers"] == 6
        and got["pruned"]["weight_bytes"] < got["dense"]["weight_bytes"] == weight_bytes(model)
    )
    for v in got.values():
        assert (
            v["ttft_s"]["n"] == 2
            and 0 < v["ttft_s"]["q1"] <= v["ttft_s"]["median"] <= v["ttft_s"]["q3"]
            and v["tokens_per_s"]["median"] > 0
        )
    assert got["pruned"]["peak_bytes"] < got["dense"]["peak_bytes"]  # a smaller key-value cache


def test_one_model_alone():
    model, inputs = one("llama")
    assert list(latency(model, inputs, new_tokens=2, repeats=1, warmup=0, memory=False)) == [
        "model"
    ]


def test_the_first_token_is_waited_for():
    "A layer that sleeps delays the first token and every token after it"
    import time

    model, inputs = one("llama")
    layer = find_decoder(model).layers[0]
    layer.register_forward_hook(lambda *_: time.sleep(0.05))
    first, speed = time_once(model, inputs, 3)
    assert first > 0.05 and speed < 20


def test_peak_memory_grows_with_what_is_kept():
    model, inputs = one("llama")
    assert peak_bytes(model, inputs, 2) < peak_bytes(
        model, {k: v.repeat(1, 4) for k, v in inputs.items()}, 2
    )


@pytest.mark.parametrize("kw, why", [(dict(repeats=0), "repeats 0")])
def test_bad_input(kw, why):
    model, inputs = one("llama")
    with pytest.raises(BadInput, match=why):
        latency(model, inputs, **kw)
    with pytest.raises(BadInput, match="plan is for 9 layers and this decoder has 8"):
        latency(dict(pruned=(model, Plan((3,), (), (), 9, "by hand", 0.1))), inputs)
    with pytest.raises(BadInput, match="2 prompts"):
        time_once(model, tiny("llama")[1])


@pytest.mark.parametrize("name", PAPER_SHAPES)
def test_the_papers_shapes(name):
    "The shapes have the parameter counts of the published models, on the meta device"
    from transformers import Qwen3VLForConditionalGeneration

    from interlace.evaluation.latency import shaped_config

    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration._from_config(shaped_config(name))
    assert (
        round(sum(p.numel() for p in model.parameters()) / 1e9, 1)
        == {"Qwen3-VL-8B": 8.8, "Qwen3-VL-4B": 4.4, "Qwen3-VL-2B": 2.1}[name]
    )
    with pytest.raises(BadInput, match="no shape"):
        shaped_model("Qwen3-VL-9B")


def test_flops_fall_with_layers_and_never_below_their_share():
    from interlace.method.surgery import pruned_by

    model, inputs = one("qwen3-vl")
    whole = prefill_flops(model, dict(tiny("qwen3-vl")[1].items()))
    with pruned_by(model, PLAN):
        less = prefill_flops(model, tiny("qwen3-vl")[1])
    assert 1 < whole / less < 8 / 6


def test_what_a_gpu_shows_is_rehearsed_without_one(tmp_path, monkeypatch):
    "Each part of the notebook runs with tiny shapes and leaves its rows"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "tables").mkdir()
    small = dict(shapes=["tiny"], nano_steps=1, step_samples=2, tokens=4, turns=2)
    papermill.execute_notebook(
        ROOT / "nbs" / "paper" / "extra" / "gpu.ipynb",
        tmp_path / "gpu.ipynb",
        small | dict(linear_tokens=[8], out=str(tmp_path / "tables" / "gpu")),
        progress_bar=False,
    )
    with open(tmp_path / "tables" / "gpu" / "gpu.csv") as file:
        rows = list(csv.DictReader(file))
    parts = {r["what"] for r in rows}
    assert {"scoring", "a pass", "generation, pruned", "2:4", "training"} <= parts
    assert {"a step of fine-tuning", "whole answers", "bfloat16 against float32"} <= parts
    assert all(float(r["value"]) >= 0 for r in rows)

"""Tests that need a GPU; they are skipped without one.

They compare low with full precision, attention kernels with each other, times with CUDA events,
and memory with the planner.
"""

import importlib.util

import numpy as np
import pytest
import torch

from interlace.evaluation.latency import latency, shaped_inputs, shaped_model
from interlace.method.decoder import on_device
from interlace.method.selection import Plan
from interlace.method.similarity import score_layers
from interlace.method.surgery import freeze_for, prune

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
SHAPE, LAYERS = "Qwen3-VL-2B", 12


def mid(dtype=torch.bfloat16, attention="sdpa"):
    "Make a random Qwen3-VL of a real width, and one prompt"
    torch.manual_seed(0)
    model = shaped_model(SHAPE, dtype, "cuda", LAYERS)
    model.set_attn_implementation(attention)
    return model, on_device(shaped_inputs(model), model)


def similarities(model, inputs):
    return [score_layers(model, [inputs], progress=False).similarity(s) for s in (1, 2, 3)]


def test_scores_in_bfloat16_are_those_in_float32():
    model, inputs = mid(torch.float32)
    full = similarities(model, inputs)
    low = similarities(
        model.to(torch.bfloat16),
        {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in inputs.items()},
    )
    for a, b in zip(full, low, strict=True):
        assert np.abs(a - b).max() < 0.01
    top = np.argsort(-full[2])[:3]
    assert set(top) & set(np.argsort(-low[2])[:5])  # the same triplets lead


@pytest.mark.skipif(
    importlib.util.find_spec("flash_attn") is None, reason="flash_attn is not installed"
)
def test_flash_attention_gives_what_sdpa_gives():
    model, inputs = mid()
    sdpa = similarities(model, inputs)
    model.set_attn_implementation("flash_attention_2")
    for a, b in zip(sdpa, similarities(model, inputs), strict=True):
        assert np.abs(a - b).max() < 0.01


def test_time_to_first_token_by_cuda_events():
    "The times of `latency` agree with events recorded on the stream"
    model, inputs = mid()
    timed = latency(
        dict(
            dense=model,
            pruned=(model, Plan(tuple(range(2, 8, 2)), (), (), LAYERS, "by hand", 0.25)),
        ),
        inputs,
        2,
        10,
    )
    for _ in range(3):
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    spans = []
    for _ in range(10):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
        end.record()
        torch.cuda.synchronize()
        spans.append(start.elapsed_time(end) / 1000)
    assert timed["dense"]["ttft_s"]["median"] == pytest.approx(float(np.median(spans)), rel=0.25)
    assert timed["pruned"]["layers"] == LAYERS - 3 and timed["dense"]["peak_bytes"] > 0


def test_a_fine_tuning_step_and_its_memory():
    "Only the tuned layers get gradients, and the peak memory is what the planner predicts"
    from interlace.reproduction.costs import Batch, Tuning, sizes, step_memory

    model, inputs = mid()
    plan = Plan((4, 7), (5, 8), (6, 9), LAYERS, "by hand", 2 / LAYERS)
    shape = sizes(model.config)
    freeze_for(prune(model, plan), plan).train()
    for p in model.parameters():
        p.data = p.data.float() if p.requires_grad else p.data
    batch = {k: v.repeat(4, *[1] * (v.dim() - 1)) for k, v in inputs.items()}
    batch["labels"] = batch["input_ids"].clone()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True
    )

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(**batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    first = step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(5):
        last = step()
    assert last < first and {
        n.split("layers.")[1].split(".")[0] for n, p in model.named_parameters() if p.requires_grad
    } == {"4", "6"}
    assert torch.cuda.max_memory_allocated() == pytest.approx(
        sum(step_memory(shape.pruned(2), Batch.of(batch), Tuning(2, 4)).values()), rel=0.15
    )

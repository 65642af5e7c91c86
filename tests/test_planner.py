"""Planning: arithmetic compared with real models and runs.

Parameters are compared with the pruned model, operations and bytes with a measured step, and the
plan of a run with its stages.
"""

import math

import pytest
import torch
from conftest import command, tiny
from torch.utils.flop_counter import FlopCounterMode

from interlace.core.errors import BadInput
from interlace.core.profiles import load_profile
from interlace.data.conversations import calibration_batches
from interlace.evaluation.latency import PAPER_SHAPES, peak_bytes, peak_of, shaped_config
from interlace.method.decoder import find_decoder
from interlace.method.finetuning import checkpoint_from
from interlace.method.loss import logits_where_labelled, token_mean
from interlace.method.selection import Plan, n_drops
from interlace.method.surgery import freeze_for, prune
from interlace.models.loading import load_model, on_meta
from interlace.models.sources import PACKAGED
from interlace.nano.samples import FAMILIES, conversation
from interlace.reproduction.costs import (
    Batch,
    Tuning,
    cache_bytes,
    config_of,
    forward_flops,
    passing_bytes,
    sizes,
    step_flops,
    step_memory,
)
from interlace.reproduction.pipeline import stages
from interlace.reproduction.rehearsal import small
from interlace.reproduction.run_plan import (
    GPUS,
    Assumptions,
    benchmark_sizes,
    find_device,
    plan_run,
    resources,
)

PAPER = {"Qwen3-VL-8B": 8.77, "Qwen3-VL-4B": 4.44, "Qwen3-VL-2B": 2.13}


def alternating(n_layers, k, lowest=1):
    "Return a plan that alternately drops and tunes layers, from `lowest` upwards"
    return Plan(
        tuple(range(lowest, lowest + 2 * k, 2)),
        tuple(range(lowest + 1, lowest + 1 + 2 * k, 2)),
        (),
        n_layers,
        "by hand",
        k / n_layers,
    )


@pytest.mark.parametrize("name", [*PAPER_SHAPES, "nano-s"])
def test_parameters_are_exact(name):
    "The count equals the parameters of the pruned and frozen model on the meta device"
    config = shaped_config(name) if name in PAPER_SHAPES else config_of(name)
    s = sizes(config)
    if name in PAPER:
        assert round(s.parameters / 1e9, 2) == PAPER[name]
    for ratio in (0.1, 0.25):
        model, k = on_meta(config), n_drops(s.layers, ratio)
        plan = alternating(s.layers, k)
        freeze_for(prune(model, plan), plan)
        assert (s.pruned(k).parameters, k * s.layer) == (
            sum(p.numel() for p in model.parameters()),
            sum(p.numel() for p in model.parameters() if p.requires_grad),
        )


def test_parameters_of_every_family(family):
    model, _ = tiny(family)
    try:
        s = sizes(model.config)
    except BadInput as e:
        assert "differ in size" in str(e) and family == "qwen3-vl-moe"
    else:
        assert s.parameters == sum(p.numel() for p in model.parameters())
        assert s.layers == len(find_decoder(model))


def midsize(attention, dtype=torch.bfloat16):
    """Return a random Qwen3-VL with a large vocabulary, pruned and frozen as for fine-tuning

    The plan, a batch whose second sample is padded, and the sizes come with it.
    """
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    torch.manual_seed(0)
    config = Qwen3VLConfig(
        text_config=dict(
            hidden_size=256,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=64,
            intermediate_size=768,
            vocab_size=8192,
            rope_parameters=dict(
                rope_type="default",
                rope_theta=1e4,
                mrope_section=[12, 10, 10],
                mrope_interleaved=True,
            ),
            tie_word_embeddings=True,
        ),
        vision_config=dict(
            hidden_size=128,
            depth=4,
            num_heads=4,
            intermediate_size=512,
            out_hidden_size=256,
            patch_size=16,
            num_position_embeddings=64,
            deepstack_visual_indexes=[0, 1, 2],
        ),
        tie_word_embeddings=True,
        image_token_id=8000,
        vision_start_token_id=8001,
        vision_end_token_id=8002,
        video_token_id=8003,
    )
    model = Qwen3VLForConditionalGeneration._from_config(
        config, dtype=dtype, attn_implementation=attention
    )
    plan = alternating(8, 2, 2)
    freeze_for(prune(model, plan), plan).train()
    for p in model.parameters():
        p.data = p.data.float() if p.requires_grad else p.data
    ids = torch.randint(0, 7000, (2, 128))
    ids[:, 4:53] = 8000
    mask = torch.ones_like(ids)
    mask[1, -20:] = 0
    batch = dict(
        input_ids=ids,
        attention_mask=mask,
        mm_token_type_ids=(ids == 8000).int(),
        # the answers: the second half, without the padding
        labels=ids.where(mask.bool() & (torch.arange(128) >= 64), -100),
        pixel_values=torch.randn(2 * 196, 3 * 2 * 256),
        image_grid_thw=torch.tensor([[1, 14, 14]] * 2),
    )
    return model, plan, batch, sizes(shape_of(config))


def shape_of(config):
    "Return the configuration before pruning"
    import copy

    config = copy.deepcopy(config)
    config.text_config.num_hidden_layers = 8
    return config


def step_of(model, batch):
    inputs = {k: v for k, v in batch.items() if k != "labels"}

    def step():
        with torch.autocast("cpu", torch.bfloat16), logits_where_labelled(model, batch["labels"]):
            out = model(**inputs, use_cache=False)
        loss = token_mean(out, batch["labels"])
        del out
        loss.backward()

    return step


@pytest.mark.parametrize(
    "attention, dtype, again",
    [
        ("sdpa", "bfloat16", False),
        ("eager", "bfloat16", False),
        ("sdpa", "float32", False),
        ("sdpa", "bfloat16", True),
    ],
)
def test_a_fine_tuning_step(attention, dtype, again):
    "Computed operations and peak memory are within 15% of the measured ones"
    model, plan, batch, s = midsize(attention, getattr(torch, dtype))
    if again:
        checkpoint_from(model, plan)
    step, b, first = step_of(model, batch), Batch.of(batch), plan.kept.index(min(plan.tune))
    known = [*model.parameters(), *model.buffers(), *batch.values()]
    with FlopCounterMode(display=False) as counter:
        step()
    model.zero_grad()
    peak = peak_of(step, known)
    tuning = Tuning(2, first, dtype, attention=attention, checkpointing=again)
    flops, parts = step_flops(s.pruned(2), b, tuning), step_memory(s.pruned(2), b, tuning)
    if attention == "eager":
        assert (
            abs(flops / counter.get_total_flops() - 1) < 0.15
        )  # the CPU's fused kernel is not in torch's count
    counted = sum(v for k, v in parts.items() if k not in ("weights", "optimizer"))
    assert abs(counted / peak - 1) < 0.15, parts
    assert parts["weights"] == sum(p.numel() * p.element_size() for p in model.parameters())


def test_the_lowest_tuned_layer_decides_and_sharding_divides():
    s = sizes(shaped_config("Qwen3-VL-8B"))
    b, left = Batch(4, 1024, 4, 196), s.pruned(9)
    assert (
        step_flops(left, b, Tuning(9, 18))
        < step_flops(left, b, Tuning(9, 2))
        < step_flops(left, b, Tuning(9, 2, checkpointing=True))
    )
    low, high = (step_memory(left, b, Tuning(9, f)) for f in (2, 18))
    assert (
        high["activations"] < low["activations"]
        and high["optimizer"] == low["optimizer"] == 8 * 9 * s.layer
    )
    one, four, zero = (
        step_memory(s, b, Tuning(36, accumulation=2, processes=g, sharding=how))
        for g, how in ((1, "ddp"), (4, "fsdp2"), (4, "zero3"))
    )
    assert (
        all(four[k] == one[k] / 4 for k in ("weights", "gradients", "optimizer"))
        and four["logits"] == one["logits"]
        and four["gathered"] > 0 == one["gathered"]
    )
    assert (
        zero["weights"] - four["weights"] == 2 * 36 * s.layer / 4
        and step_memory(s, b, Tuning(36, processes=4))["weights"] == one["weights"]
    )
    assert sum(one.values()) > 80 * 2**30 > sum(four.values())  # Dense-FT of 8B
    again = step_memory(left, b, Tuning(9, checkpointing=True))
    assert again["activations"] < one["activations"] / 3
    eager, fused, flash = (
        step_memory(left, b, Tuning(9, attention=how))["activations"]
        for how in ("eager", "sdpa", "flash_attention_2")
    )
    assert eager > fused > flash


def test_a_forward_pass_and_a_generation_of_nano():
    model, processor = load_model("nano-l", attention="eager")
    s = sizes(model.config)
    inputs = next(
        calibration_batches([conversation(n, "test", 0) for n in list(FAMILIES)[:4]], processor)
    )
    b = Batch.of(inputs)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(**inputs, use_cache=False)
    assert abs(forward_flops(s, b) / counter.get_total_flops() - 1) < 0.15
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(**inputs, use_cache=False, logits_to_keep=1)
    assert abs(forward_flops(s, b, head=b.samples) / counter.get_total_flops() - 1) < 0.15
    one = next(calibration_batches([conversation("objects", "test", 0)], processor))
    counted = cache_bytes(s, Batch.of(one), 16, dtype="float32") * (
        1 + 1 / s.layers
    ) + passing_bytes(s, Batch(1, 1), "float32", "eager")
    assert abs(counted / peak_bytes(model, one, 16) - 1) < 0.15


@pytest.mark.parametrize("profile", ["nano", "smoke", *PACKAGED, "qwen3-vl-8b", "qwen3-vl-2b-lite"])
def test_every_stage_has_its_plan(profile):
    settings = load_profile(profile)
    plan, matrix = plan_run(settings), stages(settings)
    assert [s.name for s in plan.stages] == [s.name for s in matrix]
    for s, stage in zip(plan.stages, matrix, strict=True):
        ask = resources(stage, plan)
        assert (
            ask["gpus"] == s.gpus
            and ask["mem_mb"] >= 600
            and ask["runtime"] >= 10
            and all(isinstance(v, int) for v in ask.values())
        )
        assert s.gpus == stage.gpus
        assert math.isfinite(s.minutes) and s.fits == (not s.remedy)
    text = str(plan)
    assert (
        all(
            f"{n:,}" in text
            for m in plan.models
            for r in m.rows
            for n in (r.parameters, r.trainable)
        )
        and "mfu" in text
    )
    assert plan.gpu == ("cpu" if small(settings) else "H100")


def test_what_does_not_fit_and_its_remedy():
    settings = load_profile("qwen3-vl-8b") | dict(
        batch_size=16,
        accumulation=2,
        flatten=False,
        max_length=8192,
        gradient_checkpointing=False,
        processes=1,
        dense_processes=1,
    )  # as the paper gives it
    plan = plan_run(settings, "H100")
    worst = plan.stage("train-dense-ft")
    assert not worst.fits and "sharding" in worst.remedy and worst.name in str(plan)
    pruned = plan.stage("train-interlace-25")
    assumed = Assumptions()
    answers = assumed.answer_tokens / (assumed.answer_tokens + assumed.question_tokens)
    assert not pruned.fits
    assert pruned.parts["logits"] == pytest.approx(12 * 16 * 8192 * answers * 151936)
    flat = plan_run(settings | dict(flatten=True), "H100").stage("train-interlace-25")
    assert flat.parts["logits"] < pruned.parts["logits"] / 4  # one of sixteen is that long
    words = dict(part.split(" = ") for part in pruned.remedy.split("; or ")[0].split(", "))
    assert int(words["batch_size"]) * int(words["accumulation"]) == 32
    better = settings | dict(
        batch_size=int(words["batch_size"]),
        accumulation=int(words["accumulation"]),
        gradient_checkpointing=words.get("gradient_checkpointing") == "yes",
    )
    assert plan_run(better, "H100").stage("train-interlace-25").fits
    many = plan_run(
        settings
        | dict(
            processes=8,
            dense_processes=8,
            sharding="zero3",
            batch_size=1,
            accumulation=4,
            gradient_checkpointing=True,
        ),
        "H100",
        8,
    )
    assert (
        many.stage("train-dense-ft").fits
        and many.stage("train-dense-ft").gpus == 8
        and resources("train-dense-ft", many)["gpus"] == 8
    )
    assert many.stage("train-dense-ft").minutes < worst.minutes


def test_questions_without_end_are_refused():
    "All questions of a nano benchmark: there is no last one"
    with pytest.raises(BadInput, match="questions 0 asks all of POPE.*give a number"):
        plan_run(load_profile("nano") | dict(questions=0, benchmarks=["POPE"], domains=[]))
    assert load_profile("smollm2")["questions"] == 0 and plan_run(load_profile("smollm2")).stages


def test_real_benchmarks_are_asked_in_full_in_both_ways():
    settings = load_profile("qwen3-vl-8b")
    assert plan_run(settings, "H100").stages
    with pytest.raises(BadInput, match="reasoning_questions 9: real benchmarks.*give 0"):
        plan_run(settings | dict(reasoning_questions=9), "H100")


def test_fewer_questions_are_reasoned_about_than_answered():
    settings = load_profile("nano") | dict(questions=50, reasoning_questions=20)
    rows = {
        kind: {b: q.rows for b, q in benchmark_sizes(settings, kind).items()}
        for kind in ("direct", "reasoned")
    }
    assert rows["direct"]["MMBench"] == 200 and rows["direct"]["POPE"] == 50
    assert rows["reasoned"]["MMBench"] == 80 and rows["reasoned"]["POPE"] == 20


@pytest.mark.parametrize("name", ["qwen3-vl-8b-lite", "qwen3-vl-4b-lite", "qwen3-vl-2b-lite"])
def test_a_lite_run_takes_about_a_day(name):
    plan = plan_run(load_profile(name), "H100")
    assert 6 < plan.gpu_hours < 26 and not plan.misfits


def test_assumptions_are_arguments_and_are_printed():
    settings = load_profile("qwen3-vl-2b-lite")
    usual, slow = plan_run(settings), plan_run(settings, assume=Assumptions(mfu=0.1))
    assert (
        slow.stage("train-interlace-25").minutes > usual.stage("train-interlace-25").minutes
        and slow.stage("train-interlace-25").flops == usual.stage("train-interlace-25").flops
    )
    assert "mfu 0.1" in str(slow)
    assert benchmark_sizes(settings | dict(questions=0))["POPE"].rows == 9000
    assert GPUS["H200"].memory_mib > GPUS["H100"].memory_mib
    assert find_device("rtx 4090") is GPUS["RTX4090"]


def test_bad_input(tmp_path):
    with pytest.raises(BadInput, match="no GPU 'B9000'; there are A100-40"):
        plan_run(load_profile("smoke"), "B9000")
    with pytest.raises(BadInput, match="not known before it is downloaded"):
        config_of("somebody/unheard-of")
    with pytest.raises(BadInput, match="4 processes train together, and there are 2 GPUs"):
        plan_run(load_profile("qwen3-vl-2b") | dict(processes=4), "H100", 2)
    (tmp_path / "model").mkdir()
    with pytest.raises(BadInput, match="no config.json in that folder"):
        config_of(str(tmp_path / "model"))


def test_a_folder_is_planned_by_its_config(tmp_path):
    model, _ = tiny("smolvlm")
    model.config.save_pretrained(tmp_path)
    plan = plan_run(load_profile("smoke") | dict(models=[str(tmp_path)], data="nano"), "L40S")
    assert plan.models[0].rows[0].parameters == sum(p.numel() for p in model.parameters())


def test_the_command():
    r = command("plan-run", "--profile", "qwen3-vl-2b", "--gpu", "A100-80", "--gpus", 2)
    assert (
        r.returncode == 0
        and "train-interlace-25" in r.stdout
        and "A100-80" in r.stdout
        and "GPU time" in r.stdout
    )
    r = command("plan-run", "--profile", "nano", "--gpu", "H9")
    assert r.returncode == 2 and r.stderr.count("\n") == 1 and "no GPU 'H9'" in r.stderr

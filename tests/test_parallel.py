"""Two processes give the scores, loss curve, weights and answers of one process.

A number of processes other than the requested one is refused.
"""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, command
from safetensors.torch import load_file

from interlace.baselines.distillation import distill_states
from interlace.core.errors import BadInput
from interlace.data.conversations import calibration_batches
from interlace.evaluation.harness import evaluate
from interlace.method.finetuning import finetune
from interlace.method.several_gpus import configuration, launch
from interlace.method.similarity import score_layers
from interlace.models.loading import load_model
from interlace.nano.benchmarks import write_nano_benchmarks
from interlace.nano.model import nano_model

heavy = pytest.mark.skipif(
    not os.environ.get("INTERLACE_HEAVY"),
    reason="starts many processes, minutes on 2 cores: set INTERLACE_HEAVY=1",
)

COMMON = """
import json, os, sys, torch
torch.set_num_threads(1)
from interlace.baselines.distillation import distill_states
from interlace.method.finetuning import finetune
from interlace.nano.model import nano_model, nano_processor
from interlace.nano.samples import conversation
from interlace.method.selection import Plan
from interlace.method.surgery import prune
PLAN = Plan(drop=(2, 5), tune=(3, 6), anchor=(4, 7), n_layers=8, strategy="by hand", ratio=.25)
QUICK = dict(learning_rate=1e-3, turns=5, log_steps=1, progress=False, bfloat16=False)
processor = nano_processor()
def data(n): return [conversation(("objects", "text_numbers")[i % 2], "train", i) for i in range(n)]
def pruned(dtype=torch.float32):
    return prune(nano_model(processor=processor, layers=8).to(dtype), PLAN)
"""
exec(COMMON.replace("torch.set_num_threads(1)", ""))

# 21 samples: the last step has fewer than there are places; accumulation: two batches a step
SCRIPT = (
    COMMON
    + """
from interlace.data.conversations import calibration_batches
from interlace.evaluation.harness import evaluate
from interlace.core.distributed import all_gather_objects, rank_and_world_size, shard_batches
from interlace.method.similarity import score_layers
out, fsdp = sys.argv[1], json.loads(sys.argv[2])
rank, n = rank_and_world_size(2)
model, calibration = nano_model(processor=processor, layers=8), data(11)
def keep(scores, name): rank or scores.to_json(f"{out}/{name}.json")
mine = calibration_batches(shard_batches(calibration, 2), processor, 2)
keep(score_layers(model, mine, shared=True, progress=False), "shared")
keep(score_layers(model, calibration_batches(calibration, processor, 2), progress=False), "every")
asking = dict(batch_size=4, max_new_tokens=3, progress=False)
records = [evaluate(model, processor, ["POPE", "AI2D"], f"{out}/questions", **asking)]
QUICK |= dict(batch_size=2, accumulation=2)
records.append(finetune(pruned(), PLAN, data(21), processor, f"{out}/ddp", **QUICK))
records.append(finetune(pruned(), PLAN, data(8), processor, f"{out}/distilled",
                        objective=distill_states(model, PLAN, 5.0), **QUICK))
os.environ.update(fsdp)
QUICK["gradient_checkpointing"] = True
records.append(finetune(pruned(), PLAN, data(21), processor, f"{out}/fsdp2", **QUICK))
same = all_gather_objects(json.dumps(records))
said = dict(records=records, same=same[0] == same[1])
if rank == 0: json.dump(said, open(f"{out}/said.json", "w"))
torch.distributed.destroy_process_group()
os._exit(0)      # threads that libraries have left behind are not to decide how this ends
"""
)


def accelerate_env(name):
    "The environment that `accelerate launch` gives its processes with a shipped configuration"
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    args = launch_command_parser().parse_args(
        [
            "--config_file",
            str(configuration(name)),
            "--num_processes",
            "2",
            "--main_process_port",
            "0",
            "x.py",
        ]
    )
    args = _validate_launch_command(args)[0]
    return {
        k: v
        for k, v in prepare_multi_gpu_env(args).items()
        if k.startswith(("FSDP_", "ACCELERATE_")) and os.environ.get(k) != v
    }


def start(script, *args, n=2, **env):
    env = (
        {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
        | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        | env
    )
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            str(n),
            str(script),
            *map(str, args),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


@pytest.fixture(scope="module")
def one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


@pytest.fixture(scope="module")
def two(tmp_path_factory, one_thread):
    "All results of two processes, from one launch"
    out = tmp_path_factory.mktemp("two")
    write_nano_benchmarks(out / "questions", 10, ["POPE", "AI2D"])
    (out / "script.py").write_text(SCRIPT)
    run = start(out / "script.py", out, json.dumps(accelerate_env("fsdp2")))
    said = run.communicate(timeout=600)
    assert run.returncode == 0, said[1][-4000:]
    return SimpleNamespace(out=out, **json.loads((out / "said.json").read_text()))


@pytest.fixture(scope="module")
def one(tmp_path_factory, one_thread):
    "The same training in one process, with the same number of samples per step"
    out = tmp_path_factory.mktemp("one")
    return out, finetune(
        pruned(), PLAN, data(21), processor, out / "m", batch_size=4, accumulation=2, **QUICK
    )


def test_a_further_objective_weighs_the_same(two, one_thread, tmp_path):
    dense = nano_model(processor=processor, layers=8)
    alone = finetune(
        pruned(),
        PLAN,
        data(8),
        processor,
        tmp_path / "m",
        batch_size=4,
        accumulation=2,
        objective=distill_states(dense, PLAN, 5.0),
        **QUICK,
    )
    (first,), (other,) = alone["loss"], two.records[2]["loss"]
    assert other[1] == pytest.approx(first[1], rel=0.02)  # the split into batches decides a little


def test_scores_are_bitwise_the_same(two):
    from interlace.method.layer_scores import LayerScores

    calibration = data(11)
    alone = score_layers(
        nano_model(processor=processor, layers=8),
        calibration_batches(calibration, processor, 2),
        progress=False,
    )
    assert (
        len(alone) == 11
        and LayerScores.from_json(two.out / "shared.json")
        == LayerScores.from_json(two.out / "every.json")
        == alone
    )


def test_evaluation_is_the_same(two):
    alone = evaluate(
        nano_model(processor=processor, layers=8),
        processor,
        ["POPE", "AI2D"],
        two.out / "questions",
        batch_size=4,
        max_new_tokens=3,
        progress=False,
    )
    for key in ("benchmarks", "average", "categories", "answers"):
        assert json.loads(json.dumps(alone[key])) == two.records[0][key]


@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
def test_training_is_the_same(two, one, how):
    folder, alone = one
    record = two.records[3 if how == "fsdp2" else 1]
    assert (
        two.same
        and record.keys() == alone.keys()
        and record["processes"] == 2
        and record["sharding"] == (None if how == "ddp" else how)
    )
    assert [s for s, _ in record["loss"]] == [s for s, _ in alone["loss"]] == [1, 2, 3]
    assert np.allclose(
        [loss for _, loss in record["loss"]], [loss for _, loss in alone["loss"]], rtol=0, atol=2e-5
    )  # kept to five digits
    for key in ("samples", "samples_seen", "steps", "trained", "total"):
        assert record[key] == alone[key], key
    a, b = (load_file(f / "model.safetensors") for f in (two.out / how, folder / "m"))
    assert a.keys() == b.keys() and all(a[k].dtype == b[k].dtype for k in a)
    start, tuned = (
        dict(pruned().named_parameters()),
        [f"layers.{PLAN.kept.index(i)}." for i in PLAN.tune],
    )
    for k in a:
        if "language_model" in k and any(t in k for t in tuned):
            assert (a[k] - b[k]).abs().max() < 1e-5, k
        else:
            assert torch.equal(a[k], b[k]), k
    assert any((b[k] - start[k]).abs().max() > 1e-3 for k in b)  # it did learn
    assert not list(two.out.glob("*.checkpoints")) and not list(two.out.glob("*.part"))
    for name in ("config.json", "generation_config.json", "chat_template.jinja"):
        assert (two.out / how / name).read_text() == (folder / "m" / name).read_text(), name


def test_accumulated_is_the_same_as_at_once(one, tmp_path, one_thread):
    "The loss is a mean over tokens and not of means, because answers differ in length"
    folder, accumulated = one
    at_once = finetune(
        pruned(), PLAN, data(21), processor, tmp_path / "m", batch_size=8, accumulation=1, **QUICK
    )
    assert np.allclose(
        [loss for _, loss in at_once["loss"]],
        [loss for _, loss in accumulated["loss"]],
        rtol=0,
        atol=2e-5,
    )
    a, b = (load_file(f / "m" / "model.safetensors") for f in (tmp_path, folder))
    assert all((a[k] - b[k]).abs().max() < 1e-5 for k in a)


def test_a_laid_out_model_is_saved_for_stock_classes(two, one):
    from transformers import AutoModelForImageTextToText

    batch = next(calibration_batches(data(2), processor))
    outs = [
        AutoModelForImageTextToText.from_pretrained(f).eval()(**batch).logits
        for f in (two.out / "fsdp2", one[0] / "m")
    ]
    assert (outs[0] - outs[1]).abs().max() < 1e-4
    load_model(str(two.out / "fsdp2"))


def test_the_number_of_processes_is_the_one_asked_for(tmp_path, monkeypatch):
    run = command("evaluate", "--model", "nano-l", "--processes", "2")
    assert (
        run.returncode == 2
        and run.stderr.count("\n") == 1
        and "2 processes were asked for and 1 was started" in run.stderr
        and "torchrun --nproc_per_node 2" in run.stderr
    )
    monkeypatch.setenv(
        "ACCELERATE_USE_FSDP", "true"
    )  # accelerate launch with a configuration, and a single process
    run = command("evaluate", "--model", "nano-l")
    assert run.returncode == 2 and "1 process was started" in run.stderr
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    run = command(
        "finetune",
        "--model",
        "nano-l",
        "--data",
        "x",
        "--out",
        tmp_path / "out",
        "--processes",
        "8",
    )
    assert run.returncode == 2 and "8 processes were asked for and 4 were started" in run.stderr
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    run = command("evaluate", "--model", "nano-l")
    assert run.returncode == 2 and "4 processes were started on a machine with 2 GPUs" in run.stderr
    with pytest.raises(BadInput, match="8 processes and 2 GPUs here"):
        launch(8, ["evaluate"])
    run = command("prune", "--model", "nano-l", "--out", tmp_path / "out")
    assert run.returncode == 2
    assert not (tmp_path / "out").exists()


def test_the_shipped_configurations_are_read():
    from accelerate.commands.config import load_config_from_file

    fsdp, zero = (load_config_from_file(str(configuration(n))) for n in ("fsdp2", "zero3"))
    assert (
        fsdp.distributed_type == "FSDP"
        and zero.distributed_type == "DEEPSPEED"
        and fsdp.fsdp_config["fsdp_version"] == 2
    )
    env = accelerate_env("fsdp2")
    assert (
        env["ACCELERATE_USE_FSDP"] == "true"
        and env["FSDP_VERSION"] == "2"
        and env["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
    )
    told = ROOT / zero.deepspeed_config["deepspeed_config_file"]
    assert (
        told == configuration("zero3").with_suffix(".json").resolve()
        and json.loads(told.read_text())["zero_optimization"]["stage"] == 3
    )
    from accelerate.utils.deepspeed import HfDeepSpeedConfig

    config = HfDeepSpeedConfig(str(told))
    assert (
        config.is_zero3() and not config.is_offload() and config.get_value("bf16.enabled") == "auto"
    )


@pytest.mark.parametrize(
    "case, why",
    [
        ("fsdp1", "FSDP_VERSION is 1"),
        ("float32", "weights are float32"),
        ("optimizer", "an optimizer of one's own"),
    ],
)
def test_what_cannot_be_laid_out(case, why, tmp_path, monkeypatch):
    import interlace.method.finetuning as f

    monkeypatch.setattr(f, "rank_and_world_size", lambda processes=None: (0, 2))
    monkeypatch.setenv(
        "ACCELERATE_USE_DEEPSPEED" if case == "float32" else "ACCELERATE_USE_FSDP", "true"
    )
    monkeypatch.setenv("FSDP_VERSION", "1" if case == "fsdp1" else "2")
    with pytest.raises(BadInput, match=why):
        finetune(
            pruned(),
            PLAN,
            data(4),
            processor,
            tmp_path / "m",
            **QUICK | dict(bfloat16=True),
            **(dict(optimizer=lambda m: None) if case == "optimizer" else {}),
        )
    assert not (tmp_path / "m.checkpoints").exists()

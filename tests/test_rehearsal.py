"""The paper's whole profile with stand-ins, without a hub.

Every stage, figure and table runs; artefacts are marked, and an interrupted run resumes.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import interlace

from interlace.core.errors import BadInput
from interlace.core.profiles import load_profile
from interlace.reproduction.pipeline import stages
from interlace.reproduction.rehearsal import MARK, rehearsed, short_name, small

PROFILE = "qwen3-vl-8b"
# what runs here; the whole profile has more of the same kinds
FEWER = dict(ratios=[0.25], ablation=["random"], domains=["ChartQA"])
SETTINGS = rehearsed(load_profile(PROFILE) | FEWER)
MATRIX = stages(SETTINGS)
NO_HUB = dict(
    HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0", HF_DATASETS_OFFLINE="0"
)  # whoever asks a hub finds none


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="module")
def ran(project):
    "Kill a rehearsal without warning while it scores, then start it again"
    settings = project / "settings.ini"
    whole = settings.read_text()
    head, mine = whole.split(f"[{PROFILE}]\n", 1)
    for name, values in FEWER.items():
        mine = re.sub(
            rf"(?m)^{name} = .*$", f"{name} = {' '.join(map(str, values))}", mine, count=1
        )
    settings.write_text(f"{head}[{PROFILE}]\n{mine}")
    env = os.environ | {"PYTHONPATH": str(project), "INTERLACE_ROOT": str(project)} | NO_HUB
    first = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "interlace.cli",
            "reproduce",
            "--profile",
            PROFILE,
            "--rehearse",
            "--cores",
            "1",
        ],
        cwd=project,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in first.stdout:
        if line.startswith("» scores"):
            break
    time.sleep(2)
    first.kill()
    first.wait()

    def alive():
        return [
            c
            for c in map(_read, Path("/proc").glob("[0-9]*/cmdline"))
            if str(project).encode() in c
        ]

    for _ in range(40):
        if not alive():
            break
        time.sleep(0.5)
    assert not alive()  # what it had started is gone with it
    r = interlace(
        "reproduce", "--profile", PROFILE, "--rehearse", "--cores", "1", root=project, **NO_HUB
    )
    assert r.returncode == 0, r.stdout[-2000:] + r.stderr[-4000:]
    yield project
    settings.write_text(whole)


def test_the_same_stages_as_the_real_run():
    "Stage names, notebooks and parameter names equal those of the real profile"
    real = stages(load_profile(PROFILE))
    matrix = stages(rehearsed(load_profile(PROFILE)))
    assert [(s.name.replace(f"{MARK}-", ""), s.notebook, sorted(s.parameters)) for s in matrix] == [
        (s.name, s.notebook, sorted(s.parameters)) for s in real
    ]
    assert {s.notebook for s in matrix} == {s.notebook for s in MATRIX}
    assert {s.gpus for s in matrix} == {0} and {
        s.gpus
        for s in real
        if s.notebook in tuple(f"stages/{n}" for n in ("scores", "evaluate", "sleb", "latency"))
    } == {1}
    assert (
        short_name("Qwen/Qwen3-VL-8B-Instruct@0c35") == "Qwen3-VL-8B-Instruct"
        and small(SETTINGS)
        and not small(load_profile(PROFILE))
    )


def test_every_stage_ran_and_every_artefact_is_marked(ran):
    assert {p.stem for p in (ran / "runs" / SETTINGS["profile"] / "notebooks").glob("*.ipynb")} == {
        s.name for s in MATRIX
    }
    made = [s for s in MATRIX if s.outputs[0].startswith(("figures/", "tables/"))]
    assert {s.name for s in made} == {
        *(f"figure{k}" for k in range(1, 5)),
        *(f"table{k}" for k in range(1, 7)),
        "comparison",
        "explorer",
        "losses",
        "orders",
        "records",
    }
    for s in made:
        if s.name == "records":  # an archive of them, without a caption
            continue
        assert json.loads((ran / s.outputs[-1]).read_text())["caption"].startswith(MARK), s.name
        for f in s.outputs:
            if f.endswith((".md", ".tex")):
                assert MARK in (ran / f).read_text(), f
            if f.endswith(".csv"):
                assert set(pd.read_csv(ran / f)["note"]) == {MARK}, f


def test_what_ran_is_the_profile(ran):
    "The real model's depth, the paper's ratio, and the readers of FineVision and the benchmarks"
    home = ran / "runs" / SETTINGS["profile"]
    record = json.loads(
        (
            home
            / f"{MARK}-Qwen3-VL-8B-Instruct"
            / "variants"
            / "interlace-25"
            / "s42"
            / "record.json"
        ).read_text()
    )
    assert (
        record["plan"]["n_layers"] == 36
        and len(record["plan"]["drop"]) == 9
        and MARK in record["model"]
    )
    assert (
        set(record["direct"]["benchmarks"]) == set(SETTINGS["benchmarks"]) - {"MIABench"}
        and "MIABench" in record["direct"]["left_out"]
    )
    assert (
        "MIABench"
        in json.loads((ran / "tables" / SETTINGS["profile"] / "table1.json").read_text())["caption"]
    )
    dense = json.loads(
        (
            home / f"{MARK}-Qwen3-VL-8B-Instruct" / "variants" / "dense-ft" / "s42" / "record.json"
        ).read_text()
    )["training"]
    assert (dense["processes"], dense["sharding"]) == (2, "fsdp2") and record["training"][
        "processes"
    ] == 1  # several train together, as in the real run
    assert all(
        t["batch_size"] * t["accumulation"] * t["processes"] == 8 and t["steps"] > 4
        for t in (dense, record["training"])
    )
    manifest = json.loads((home / "data" / "manifest.json").read_text())
    assert (
        manifest["totals"]["broken"]
        and len(manifest["subsets"]) > 5
        and record["training"]["left_out"]
    )


def test_a_second_rehearsal_has_nothing_to_do(ran):
    r = interlace(
        "reproduce", "--profile", PROFILE, "--rehearse", "--cores", "1", root=ran, **NO_HUB
    )
    assert r.returncode == 0 and "nothing to do" in r.stdout


def test_nano_needs_no_rehearsal():
    with pytest.raises(BadInput, match="needs no rehearsal"):
        rehearsed(load_profile("nano"))


def test_more_gpus_than_there_are(project, monkeypatch):
    "The error comes before anything runs; stages that need fewer GPUs can run"
    import interlace.reproduction.pipeline as r

    monkeypatch.setenv("INTERLACE_ROOT", str(project))
    monkeypatch.setattr(r, "_gpus", lambda: 1)
    with pytest.raises(BadInput, match="stage train-dense-ft takes 4 GPUs, and 1 is here"):
        r.reproduce(PROFILE)
    real = stages(load_profile(PROFILE))
    assert {s.name for s in r._needed(real, ["figure2"])} == {
        "data",
        "scores",
        "plans",
        "figure2",
    } and max(s.gpus for s in r._needed(real, ["table2"])) == 1


def test_what_a_scheduler_is_asked_for(project):
    "Each stage requests the GPUs, memory and minutes that the planner computes"
    from interlace.reproduction.run_plan import plan_run, resources

    settings = load_profile(PROFILE, project / "settings.ini")
    out = subprocess.run(
        [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            "nbs/paper/Snakefile",
            "--config",
            f"profile={PROFILE}",
            "submit=1",
            "--cores",
            "1",
            "--dry-run",
        ],
        cwd=project,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(project), "INTERLACE_ROOT": str(project)},
    )
    assert out.returncode == 0, out.stderr[-2000:]
    plan, said = plan_run(settings), out.stdout + out.stderr
    for name in ("scores", "train-dense-ft", "interlace-25", "figure1"):
        asked = dict(
            re.findall(
                r"(\w+)=([\d.]+)", re.search(rf"rule {name}:.*?resources: ([^\n]*)", said, re.S)[1]
            )
        )
        want = resources(next(s for s in stages(settings) if s.name == name), plan)
        assert (int(asked.get("gpu", 0)), int(asked["runtime"])) == (
            want["gpus"],
            want["runtime"],
        ), name
        assert int(asked["mem_mb"]) == want["mem_mb"], name

"""The smoke profile, with fewer questions, end to end through papermill.

Further tests cover a second run, a change, a kill and an old artefact.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from conftest import ROOT, interlace

from interlace.core.profiles import load_profile
from interlace.evaluation.metrics import question_scores
from interlace.reproduction import pipeline as reproduction
from interlace.reproduction.pipeline import stages

QUESTIONS = 4
MATRIX = stages(load_profile("smoke"))


def of(*notebooks):
    return [s.name for s in MATRIX if s.notebook in notebooks]


TRAINED, EVALUATED, ALL = of("stages/train"), of("stages/evaluate"), [s.name for s in MATRIX]
FROM_ANSWERS = [
    "figure1",
    "figure3",
    "table1",
    "table2",
    "table3",
    "table4",
    "table6",
    "comparison",
    "losses",
    "orders",
    "records",
]  # artefacts made from records of fine-tuned variants
ARTEFACTS = [*FROM_ANSWERS, "figure2", "figure4", "explorer", "gallery", "table5"]
TUNED = [n for n in EVALUATED if f"train-{n}" in TRAINED]
RECORDS = "runs/smoke/nano-l/variants"


def names(stdout):
    return sorted({line.split("»")[1].strip() for line in stdout.splitlines() if "»" in line})


def record(root, variant):
    return json.loads((root / RECORDS / variant / "s42" / "record.json").read_text())


@pytest.fixture(scope="module")
def ran(project):
    "Run all of smoke: interrupt it in the middle, then start it again"
    ini = project / "settings.ini"
    ini.write_text(
        ini.read_text()
        .replace("questions = 16", f"questions = {QUESTIONS}")
        .replace("sleb_samples = 4", "sleb_samples = 2")
    )
    env = os.environ | {"PYTHONPATH": str(project), "INTERLACE_ROOT": str(project)}
    first = subprocess.Popen(
        [sys.executable, "-m", "interlace.cli", "reproduce", "--profile", "smoke", "--cores", "1"],
        cwd=project,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # as in a terminal; a background job would ignore Ctrl-C
    seen = []
    for line in first.stdout:
        seen += names(line)
        if (
            set(seen) & {*TRAINED, "sleb"}
            and (project / "runs" / "smoke" / "nano-l" / "scores.json").exists()
        ):
            break
    time.sleep(6)
    os.killpg(first.pid, signal.SIGINT)  # Ctrl-C, as a terminal sends it
    assert first.wait(60) == 130
    with open(project / "runs" / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free again
    kept = (project / "runs" / "smoke" / "nano-l" / "scores.json").stat().st_mtime_ns
    r = interlace("reproduce", "--profile", "smoke", "--cores", "1", root=project)
    assert r.returncode == 0, (
        r.stdout + r.stderr + (project / "runs" / "smoke" / "snakemake.log").read_text()
    )
    assert (
        "scores" not in names(r.stdout)
        and (project / "runs" / "smoke" / "nano-l" / "scores.json").stat().st_mtime_ns == kept
    )  # it went on
    return project


def test_the_matrix_has_what_the_paper_has():
    nano = [s.name for s in stages(load_profile("nano"))]
    assert {f"figure{k}" for k in (1, 2, 3, 4)} | {f"table{k}" for k in (1, 2, 3, 4, 5, 6)} | {
        "comparison"
    } <= set(nano) & set(ALL)
    assert {
        "dense",
        "dense-ft",
        "sleb-25",
        "sleb-ft-25",
        "interlace-25-untuned",
        "wanda-2-4",
        "magnitude-2-4",
        *(f"interlace-{r}" for r in (10, 15, 20, 25)),
        *(f"{s}-25" for s in ("interlace-oa", "interlace-tn", "consecutive", "random")),
        *(f"interlace-25-{d}" for d in ("ChartQA", "TextVQA", "ScienceQA")),
    } <= set(nano)
    assert len(set(nano)) == len(nano)


@pytest.mark.parametrize(
    "there, asked, room", [(100_000, None, 10_500), (5_000, None, 4500), (100_000, 20_000, 20_000)]
)
def test_stages_take_the_memory_of_the_profile(monkeypatch, there, asked, room):
    "Use the limit of smollm2, at most the installed memory, unless the call names another limit"
    seen = []
    monkeypatch.setattr(reproduction, "installed", lambda: there)
    monkeypatch.setattr(
        reproduction,
        "_snakemake",
        lambda args, *rest: (seen.extend(args), (0, ["Nothing to be done"]))[1],
    )
    assert reproduction.reproduce("smollm2", memory=asked, dry_run=True) == 0
    assert f"mem_mb={room}" in seen


def test_two_models_and_another_first_seed():
    "With any first seed, an earlier stage makes the inputs of every stage"
    made = set()
    for s in stages(
        load_profile("smoke") | dict(models=["nano-l", "elsewhere/nano-s"], seeds=[7, 8])
    ):
        assert {i for i in s.inputs if not i.startswith("interlace/")} <= made, s.name
        made |= set(s.outputs)
    assert "runs/smoke/nano-s/variants/dense/s7/record.json" in made and not any(
        "/s42/" in f for f in made
    )


def test_every_artefact_is_there_with_its_record(ran):
    for s in MATRIX:
        if s.name not in ARTEFACTS or s.name == "records":
            continue
        for f in s.outputs:
            assert (ran / f).stat().st_size > 200, f
        made = json.loads((ran / s.outputs[-1]).read_text())
        assert made["caption"] and made["inputs"] and made["provenance"]["versions"]["torch"]
        for f in made["inputs"]:
            assert (ran / f).exists(), f  # from a number to its record
    assert {p.stem for p in (ran / "runs" / "smoke" / "notebooks").glob("*.ipynb")} == set(ALL)


def test_the_records_of_a_run_are_one_archive(ran):
    "What every figure and table was made from, under the names of the run"
    with tarfile.open(ran / "tables" / "smoke" / "records.tar.xz") as archive:
        inside = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}
    read = {i for s in MATRIX if s.name in ARTEFACTS for i in s.inputs if i.startswith("runs/")}
    assert set(inside) == {i for i in read if i.endswith(".json")}
    assert all(content == (ran / name).read_bytes() for name, content in inside.items())


def test_fine_tuning_really_happened(ran):
    assert record(ran, "dense")["training"] is None
    for n in TUNED:
        t = record(ran, n)["training"]
        assert (
            t["steps"] == len(range(0, t["samples_seen"], t["batch_size"]))
            and len(t["loss"]) >= 3
            and all(loss > 0 for _, loss in t["loss"])
        )
    assert (
        len(record(ran, "interlace-25")["plan"]["drop"]) == 9
        and record(ran, "interlace-25")["training"]["trained"]
        < record(ran, "dense-ft")["training"]["trained"]
    )
    assert (
        record(ran, "interlace-25-ScienceQA")["training"]["samples_seen"]
        == record(ran, "interlace-25")["training"]["samples_seen"]
    )
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(
        ran / RECORDS / "interlace-25" / "s42" / "model"
    )
    assert len(model.model.language_model.layers) == 27


@pytest.mark.parametrize("content", ["[]", '{"precision": "half"}'])
def test_a_damaged_choice_of_precision_is_one_line(project, content):
    chosen = project / "runs" / "smoke" / "precision.json"
    before = chosen.read_text() if chosen.exists() else None
    chosen.parent.mkdir(parents=True, exist_ok=True)
    chosen.write_text(content)
    try:
        r = interlace("reproduce", "--profile", "smoke", "--dry-run", root=project)
    finally:
        chosen.write_text(before) if before else chosen.unlink()
    assert r.returncode == 2 and r.stderr.count("\n") == 1 and "precision.json" in r.stderr


def test_a_run_keeps_the_precision_that_it_chose(monkeypatch, tmp_path):
    from interlace.reproduction.pipeline import run_settings

    monkeypatch.setenv("INTERLACE_ROOT", str(tmp_path))
    shutil.copy(ROOT / "settings.ini", tmp_path)
    (tmp_path / "runs" / "smoke").mkdir(parents=True)
    file = tmp_path / "runs" / "smoke" / "precision.json"
    for chosen in ("float32", "bfloat16"):
        file.write_text(json.dumps(dict(kind="precision", precision=chosen)))
        settings = run_settings("smoke")
        assert (settings["eval_dtype"], settings["bfloat16"]) == (chosen, chosen == "bfloat16")
        assert run_settings("smoke", elsewhere=True)["eval_dtype"] == "bfloat16"


def test_the_run_chose_its_precision_and_the_records_name_it(ran):
    chosen = json.loads((ran / "runs/smoke/precision.json").read_text())["precision"]
    tuned = record(ran, "interlace-25")
    assert tuned["direct"]["provenance"]["parameters"].get("dtype", chosen) == chosen
    assert tuned["provenance"]["parameters"]["dtype"] == chosen
    assert tuned["training"]["bfloat16"] == (chosen == "bfloat16")


def test_thinned_out_variants_have_half_their_weights(ran):
    from torch.nn import Linear

    from interlace.method.decoder import find_decoder
    from interlace.models.loading import load_model

    inside = sum(
        m.weight.numel()
        for layer in find_decoder(load_model("nano-l")[0]).layers
        for m in layer.modules()
        if isinstance(m, Linear)
    )
    for n in ("wanda-2-4", "magnitude-2-4"):
        assert (
            record(ran, n)["zeros"] == pytest.approx(inside / 2, rel=1e-3)
            and record(ran, n)["plan"]["drop"] == []
        )


def test_the_table_says_what_the_records_say(ran):
    table = pd.read_csv(ran / "tables" / "smoke" / "table1.csv")
    want = {
        "Dense": "dense",
        "Dense-FT": "dense-ft",
        "Wanda 2:4": "wanda-2-4",
        "Magnitude 2:4": "magnitude-2-4",
        "SLEB": "sleb-25",
        "SLEB-FT": "sleb-ft-25",
        "INTERLACE": "interlace-25",
        "INTERLACE, not fine-tuned": "interlace-25-untuned",
    }
    assert list(table["method"]) == list(want) and list(table["sparsity"]) == [
        0,
        0,
        50,
        50,
        25,
        25,
        25,
        25,
    ]
    for row in table.to_dict("records"):
        e = record(ran, want[row["method"]])["direct"]
        assert row["average"] == pytest.approx(e["average"]["score"], abs=1e-3) and row[
            "n"
        ] == 12 * QUESTIONS == sum(b["n"] for b in e["benchmarks"].values())
        for b, v in e["benchmarks"].items():
            assert v["score"] == pytest.approx(
                100 * sum(question_scores(e["answers"][b])) / QUESTIONS
            )
        assert row["average_low"] <= row["average"] <= row["average_high"]


# none of the paper's models ran here
def test_verdicts_follow_from_the_figures(ran):
    t = pd.read_csv(ran / "tables" / "smoke" / "comparison.csv")
    assert set(t["verdict"]) <= {"agrees", "differs", "not told apart", "not comparable", "not run"}
    ordered, values = t[t["kind"] == "ordering"], t[t["kind"] == "value"]
    assert not set(values["verdict"]) & {"agrees", "differs"}
    for r in ordered.to_dict("records"):
        want = (
            "not run"
            if pd.isna(r["ours"])
            else "agrees"
            if r["low"] > 0
            else "differs"
            if r["high"] < 0
            else "not told apart"
        )
        assert r["verdict"] == want, r
    assert (ordered["verdict"] != "not run").any()


def test_a_second_run_has_nothing_to_do(ran):
    start = time.time()
    r = interlace("reproduce", "--profile", "smoke", "--cores", "1", root=ran)
    assert (
        r.returncode == 0
        and "nothing to do" in r.stdout
        and not names(r.stdout)
        and time.time() - start < 60
    )


def test_neither_the_folder_nor_the_environment_is_part_of_a_stage(ran, tmp_path):
    "The stages stay the same in another folder and with a Python at another path"
    moved = shutil.copytree(
        ran, tmp_path / "moved", ignore=shutil.ignore_patterns("*.safetensors", "__pycache__")
    )
    for weights in ran.rglob("*.safetensors"):
        os.link(weights, moved / weights.relative_to(ran))
    (tmp_path / "environment").symlink_to(sys.prefix)
    python = tmp_path / "environment" / Path(sys.executable).relative_to(sys.prefix)
    r = interlace("reproduce", "--profile", "smoke", "--cores", "1", root=moved, python=python)
    assert r.returncode == 0 and "nothing to do" in r.stdout, r.stdout + r.stderr


def would_run(root, *only):
    r = interlace(
        "reproduce",
        "--profile",
        "smoke",
        "--cores",
        "1",
        "--dry-run",
        *(["--only", *only] if only else []),
        root=root,
    )
    assert r.returncode == 0, r.stderr
    return names(r.stdout)


AT_20 = [n.replace("-25", "-20") for n in (*TRAINED, *EVALUATED) if "-25" in n]


@pytest.mark.parametrize(
    "file, old, new, rerun",
    [
        (
            "settings.ini",
            f"questions = {QUESTIONS}",
            "questions = 3",
            ["benchmarks", *EVALUATED, "gallery", *FROM_ANSWERS],
        ),
        (
            "settings.ini",
            "ratios = 0.25",
            "ratios = 0.20",
            [
                "plans",
                "sleb",
                *AT_20,
                "latency",
                "figure1",
                "figure2",
                "explorer",
                "table1",
                "table2",
                "table3",
                "table4",
                "table5",
                "table6",
                "comparison",
                "losses",
                "orders",
                "records",
            ],
        ),
        (
            "interlace/method/finetuning.py",
            "def train(",
            "A_CHANGE = 1\n\n\ndef train(",
            [*TRAINED, *TUNED, *FROM_ANSWERS],
        ),
        (
            "interlace/method/selection.py",
            "def make_plan(",
            "A_CHANGE = 1\n\n\ndef make_plan(",
            [n for n in ALL if n not in ("data", "benchmarks", "scores")],
        ),
        (
            "interlace/reproduction/artifacts.py",
            "def figure_style(",
            "A_CHANGE = 1\n\n\ndef figure_style(",
            ARTEFACTS,
        ),
        (
            "interlace/evaluation/harness.py",
            "def evaluate(",
            "A_CHANGE = 1\n\n\ndef evaluate(",
            [
                "benchmarks",
                *EVALUATED,
                *(n for n in ARTEFACTS if n not in ("figure2", "figure4", "explorer", "table5")),
            ],
        ),
        ("nbs/paper/figures/figure4.ipynb", "lw=1.2, marker", "lw=1.3, marker", ["figure4"]),
    ],
)
# the smoke profile's own line
def test_a_change_reruns_what_depends_on_it_and_nothing_else(ran, file, old, new, rerun):
    i = (
        (ran / file).read_text().rindex(old)
        if file == "settings.ini" and old.startswith(("questions", "ratios"))
        else 0
    )
    text = (ran / file).read_text()
    (ran / file).write_text(text[:i] + text[i:].replace(old, new, 1))
    assert (ran / file).read_text() != text
    try:
        assert would_run(ran) == sorted(rerun)
    finally:
        (ran / file).write_text(text)


def test_only_makes_one_artefact_and_what_it_needs(project, ran):
    (ran / "figures" / "smoke" / "figure2.png").unlink()
    assert would_run(ran, "figure2") == ["figure2"] and would_run(ran, "figure4") == []
    assert (
        interlace(
            "reproduce", "--profile", "smoke", "--cores", "1", "--only", "figure2", root=ran
        ).returncode
        == 0
    )
    assert (ran / "figures" / "smoke" / "figure2.png").exists()


def test_the_same_again_gives_the_same_bytes(ran):
    files = [
        ran / f
        for f in (
            "tables/smoke/table1.csv",
            "figures/smoke/figure1.png",
            "figures/smoke/figure2.png",
        )
    ]
    before = [f.read_bytes() for f in files]
    for f in files:
        f.unlink()
    assert interlace("reproduce", "--profile", "smoke", "--cores", "1", root=ran).returncode == 0
    assert [f.read_bytes() for f in files] == before


def test_an_artefact_that_cannot_be_made_fails_and_the_old_one_goes(ran):
    scores = ran / "runs" / "smoke" / "nano-l" / "scores.json"
    text = scores.read_text()
    scores.write_text('{"kind": "scores"}')
    try:
        r = interlace(
            "reproduce", "--profile", "smoke", "--cores", "1", "--only", "figure4", root=ran
        )
        assert (
            r.returncode == 2
            and "not a scores file" in r.stderr
            and len([line for line in r.stderr.splitlines() if line.startswith("interlace")]) == 1
        )
        assert not (ran / "figures" / "smoke" / "figure4.png").exists()
    finally:
        scores.write_text(text)


def test_a_second_run_in_the_same_folder_is_refused(ran):
    with open(ran / "runs" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        r = interlace("reproduce", "--profile", "smoke", "--cores", "1", root=ran)
        assert r.returncode == 2 and "another run" in r.stderr


HOLDER = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(flush=True)"


def test_a_stage_ends_when_its_front_is_killed(tmp_path):
    "Also one that is not forked from the server: otherwise the next run would do its work twice"
    cell = nbformat.v4.new_code_cell("import time; time.sleep(300)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "slow.ipynb")
    lock, started = tmp_path / "lock", tmp_path / "out.part.ipynb"
    command = [sys.executable, "-c", f"{HOLDER}; time.sleep(300)", str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as front:
        front.stdout.readline()
        run = [sys.executable, ROOT / "nbs" / "paper" / "run.py", "stage", "0"]
        run += [tmp_path / "slow.ipynb", tmp_path / "out", "{}"]
        env = os.environ | dict(INTERLACE_LOCK=str(lock))
        with subprocess.Popen([*map(str, run)], env=env, stderr=subprocess.DEVNULL) as stage:
            while not started.exists():
                assert stage.poll() is None
                time.sleep(0.2)
            front.kill()
            assert stage.wait(30) != 0
    assert not (tmp_path / "out.ipynb").exists()


def test_stages_as_jobs_of_a_cluster(ran):
    """The generic executor with a local submit command

    Each job runs independently and requests the resources that its stage needs.
    """
    for n in ("figure2", "figure4"):
        (ran / "figures" / "smoke" / f"{n}.png").unlink(missing_ok=True)
    r = interlace(
        "reproduce",
        "--profile",
        "smoke",
        "--cores",
        "1",
        "--only",
        "figure2",
        "figure4",
        "--cluster",
        "generic",
        root=ran,
    )
    assert r.returncode == 0, r.stdout + r.stderr
    asked = {
        line.split()[0]: line.split()[1:]
        for line in (ran / "runs" / "jobs" / "submitted.txt").read_text().splitlines()
    }
    need = {s.name: s for s in MATRIX}
    assert asked == {
        n: ["threads=1", "gpu=0", f"mem_mb={need[n].memory}", "runtime=60"]
        for n in ("figure2", "figure4")
    }
    assert all((ran / "figures" / "smoke" / f"{n}.png").exists() for n in asked)
    r = interlace(
        "reproduce", "--profile", "smoke", "--cores", "1", "--cluster", "nowhere", root=ran
    )
    assert r.returncode == 2 and "there are generic, kubernetes, slurm" in r.stderr

"""The smoke profile end to end through papermill; then what a second run, a change, a kill and an old artefact do."""
import json, os, signal, subprocess, sys, time

import pandas as pd
import pytest
from interlace.evaluation import question_scores
from conftest import interlace

TRAINED = ["train-dense-ft", "train-interlace-25"]
EVALUATED = ["dense", "dense-ft", "interlace-25"]
ALL = ["data", "benchmarks", "scores", "plans", *TRAINED, *EVALUATED, "figure2", "figure4", "gallery", "table1"]


def names(stdout): return sorted({l.split("»")[1].strip() for l in stdout.splitlines() if "»" in l})


@pytest.fixture(scope="module")
def ran(project):
    "All of smoke: first killed in the middle, then started again"
    env = os.environ | {"PYTHONPATH": str(project), "INTERLACE_ROOT": str(project)}
    first = subprocess.Popen([sys.executable, "-m", "interlace.cli", "reproduce", "--profile", "smoke"], cwd=project, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True,
                             preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))     # as in a terminal; a background job would ignore Ctrl-C
    seen = []
    for line in first.stdout:
        seen += names(line)
        if set(seen) & {*TRAINED, *EVALUATED}: break
    time.sleep(6)
    os.killpg(first.pid, signal.SIGINT)              # Ctrl-C, as a terminal sends it
    assert first.wait(60) == 130
    assert not (project/"runs"/"snakemake.pid").exists()
    kept = (project/"runs"/"smoke"/"scores"/"nano-l.json").stat().st_mtime_ns
    r = interlace("reproduce", "--profile", "smoke", root=project)
    assert r.returncode == 0, r.stdout + r.stderr + (project/"runs"/"smoke"/"snakemake.log").read_text()
    assert "scores" not in names(r.stdout) and (project/"runs"/"smoke"/"scores"/"nano-l.json").stat().st_mtime_ns == kept     # it went on
    return project


def test_every_artefact_is_there_with_its_record(ran):
    for f in ("figures/smoke/figure2.png", "figures/smoke/figure2.pdf", "figures/smoke/figure4.png", "figures/smoke/figure4.pdf", "tables/smoke/table1.csv", "tables/smoke/table1.md", "tables/smoke/table1.tex"):
        assert (ran/f).stat().st_size > 200, f
    for f in ("figures/smoke/figure2.json", "figures/smoke/figure4.json", "tables/smoke/table1.json"):
        record = json.loads((ran/f).read_text())
        assert record["caption"] and record["inputs"] and record["provenance"]["versions"]["torch"]
    assert {p.stem for p in (ran/"runs"/"smoke"/"notebooks").glob("*.ipynb")} == set(ALL)


def test_fine_tuning_really_happened(ran):
    records = {n: json.loads((ran/"runs"/"smoke"/"variants"/n/"record.json").read_text()) for n in ("dense", "dense-ft", "interlace-25")}
    assert records["dense"]["training"] is None
    for n in ("dense-ft", "interlace-25"):
        t = records[n]["training"]
        assert t["steps"] == len(range(0, t["samples_seen"], t["batch_size"])) and len(t["loss"]) >= 5 and all(l > 0 for _, l in t["loss"])
    assert len(records["interlace-25"]["plan"]["drop"]) == 9 and records["interlace-25"]["training"]["trained"] < records["dense-ft"]["training"]["trained"]
    from transformers import AutoModelForImageTextToText
    model = AutoModelForImageTextToText.from_pretrained(ran/"runs"/"smoke"/"variants"/"interlace-25"/"model")
    assert len(model.model.language_model.layers) == 27


def test_the_table_says_what_the_records_say(ran):
    table = pd.read_csv(ran/"tables"/"smoke"/"table1.csv")
    assert list(table["method"]) == ["Dense", "Dense-FT", "INTERLACE"] and list(table["sparsity"]) == [0, 0, 25]
    for row, n in zip(table.to_dict("records"), ("dense", "dense-ft", "interlace-25")):
        e = json.loads((ran/"runs"/"smoke"/"variants"/n/"record.json").read_text())["evaluation"]
        assert row["average"] == pytest.approx(e["average"]["score"], abs=1e-3) and row["n"] == 12*16 == sum(b["n"] for b in e["benchmarks"].values())
        for b, v in e["benchmarks"].items(): assert v["score"] == pytest.approx(100*sum(question_scores(e["answers"][b]))/16)


def test_a_second_run_has_nothing_to_do(ran):
    start = time.time()
    r = interlace("reproduce", "--profile", "smoke", root=ran)
    assert r.returncode == 0 and "nothing to do" in r.stdout and not names(r.stdout) and time.time() - start < 60


def would_run(root, *only):
    r = interlace("reproduce", "--profile", "smoke", "--dry-run", *(["--only", *only] if only else []), root=root)
    assert r.returncode == 0, r.stderr
    return names(r.stdout)


def changed(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return lambda: path.write_text(text)


@pytest.mark.parametrize("file, old, new, rerun", [
    ("settings.ini", "questions = 16", "questions = 15", ["benchmarks", *EVALUATED, "gallery", "table1"]),
    ("settings.ini", "learning_rate = 1e-3", "learning_rate = 2e-3", [*TRAINED, "dense-ft", "interlace-25", "table1"]),
    ("settings.ini", "ratios = 0.25", "ratios = 0.20", ["plans", "train-interlace-20", "interlace-20", "figure2", "table1"]),
    ("interlace/finetuning.py", "def train(", "# a change\ndef train(", [*TRAINED, "dense-ft", "interlace-25", "table1"]),
    ("interlace/selection.py", "def make_plan(", "# a change\ndef make_plan(", ["plans", *TRAINED, *EVALUATED, "figure2", "figure4", "gallery", "table1"]),
    ("interlace/records.py", "def figure_style(", "# a change\ndef figure_style(", ["figure2", "figure4", "gallery", "table1"]),
    ("nbs/paper/figure4.ipynb", "Two panels share", "The two panels share", ["figure4"]),
])
def test_a_change_reruns_what_depends_on_it_and_nothing_else(ran, file, old, new, rerun):
    undo = changed(ran/file, old, new)
    try: assert would_run(ran) == sorted(rerun)
    finally: undo()


def test_only_makes_one_artefact_and_what_it_needs(project, ran):
    (ran/"figures"/"smoke"/"figure2.png").unlink()
    assert would_run(ran, "figure2") == ["figure2"] and would_run(ran, "figure4") == []
    assert interlace("reproduce", "--profile", "smoke", "--only", "figure2", root=ran).returncode == 0
    assert (ran/"figures"/"smoke"/"figure2.png").exists()


def test_the_same_again_gives_the_same_bytes(ran):
    table, figure = ran/"tables"/"smoke"/"table1.csv", ran/"figures"/"smoke"/"figure2.png"
    before = table.read_bytes(), figure.read_bytes()
    for f in (table, figure): f.unlink()
    assert interlace("reproduce", "--profile", "smoke", root=ran).returncode == 0
    assert (table.read_bytes(), figure.read_bytes()) == before


def test_an_artefact_that_cannot_be_made_fails_and_the_old_one_goes(ran):
    record = ran/"runs"/"smoke"/"scores"/"nano-l.json"
    text = record.read_text()
    record.write_text('{"kind": "scores"}')
    try:
        r = interlace("reproduce", "--profile", "smoke", "--only", "figure4", root=ran)
        assert r.returncode == 2 and "not a scores file" in r.stderr and len([l for l in r.stderr.splitlines() if l.startswith("interlace")]) == 1
        assert not (ran/"figures"/"smoke"/"figure4.png").exists()
    finally: record.write_text(text)


def test_a_second_run_beside_a_first_is_refused(ran):
    (ran/"runs"/"snakemake.pid").write_text(str(os.getpid()))
    try:
        r = interlace("reproduce", "--profile", "smoke", root=ran)
        assert r.returncode == 2 and "another run" in r.stderr
    finally: (ran/"runs"/"snakemake.pid").unlink()

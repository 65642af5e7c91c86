"""User-defined strategies and benchmarks, from the file in a profile to the stages of a run.

Each possible mistake is tested too.
"""

import json

import numpy as np
import pytest
from conftest import ROOT, command, forget_extensions, interlace

from interlace.core.errors import BadInput
from interlace.core.profiles import load_profile
from interlace.core.registry import import_extensions
from interlace.evaluation.harness import ADDED
from interlace.method.layer_scores import LayerScores
from interlace.method.selection import RULES, STRATEGIES
from interlace.nano.benchmarks import _png, _write_parquet
from interlace.nano.samples import scene
from interlace.reproduction.pipeline import TEXT_SETS, check_profile, extensions_of, stages

RULE = """import interlace as il

def every_nth(S, L, K, seed):
    drops = [L*(2*k + 1)//(2*K) - 1 for k in range(K)]
    return {i: 'drop' for i in drops} | {i+1: 'tune' for i in drops}

il.add_strategy('every-nth', every_nth)
"""
BENCHMARK = """from pathlib import Path
import interlace as il
from .metrics import close

exam = il.local_exam(Path(__file__).parent/'questions.parquet', close)
il.add_benchmark('Counting', exam, 'Perception')
"""
METRIC = """def close(answer, reference, options=()):
    said = answer.strip(' .')
    return max(0, 1 - abs(int(said) - int(reference))/2) if said.isdigit() else 0
"""
PROFILE = (
    "\n[own]\nextends = smoke\nextensions = mine/rule.py mine/counting\nablation = random"
    " every-nth\nbenchmarks = POPE ScienceQA Counting\nquestions = 2\n"
)


@pytest.fixture
def own(tmp_path, monkeypatch):
    "A project with a profile that adds a strategy and a benchmark"
    for name in ("nbs", "interlace", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "settings.ini").write_text((ROOT / "settings.ini").read_text() + PROFILE)
    (tmp_path / "mine" / "counting").mkdir(parents=True)
    for name, text in (
        ("rule.py", RULE),
        ("counting/__init__.py", BENCHMARK),
        ("counting/metrics.py", METRIC),
    ):
        (tmp_path / "mine" / name).write_text(text)
    scenes = [scene("objects", "test", i) for i in range(6)]
    _write_parquet(
        [
            dict(
                image=_png(s.draw()),
                question="How many objects are there?",
                answer=str(len(s.spec["things"])),
            )
            for s in scenes
        ],
        tmp_path / "mine" / "counting" / "questions.parquet",
        ["image"],
    )
    monkeypatch.setenv("INTERLACE_ROOT", str(tmp_path))
    yield tmp_path
    forget_extensions()
    assert not set(ADDED) - set(TEXT_SETS) and tuple(STRATEGIES) == RULES


def cells(notebook, parameters):
    "Run a notebook's code in this process with these parameters; return its variables"
    left = {}
    for c in json.loads((ROOT / "nbs" / "paper" / f"{notebook}.ipynb").read_text())["cells"]:
        if c["cell_type"] == "code":
            exec("".join(c["source"]), left)
            if "parameters" in c["metadata"].get("tags", []):
                left |= parameters
    return left


def test_the_matrix_has_them_where_they_are_needed(own):
    settings = load_profile("own")
    check_profile(settings)
    assert extensions_of(settings) == dict(strategy=["mine/rule.py"], benchmark=["mine/counting"])
    matrix = {s.name: s for s in stages(settings)}
    folder = {f"mine/counting/{f}" for f in ("__init__.py", "metrics.py", "questions.parquet")}
    assert "mine/rule.py" in matrix["plans-own"].inputs and matrix["plans-own"].outputs == [
        "runs/own/nano-l/plans/every-nth-25.json"
    ]
    for s in matrix.values():
        assert ("mine/rule.py" in s.inputs) == (s.name == "plans-own")
        assert (
            folder <= set(s.inputs)
            if s.notebook in ("stages/benchmarks", "stages/evaluate")
            else not folder & set(s.inputs)
        ), s.name
    assert (
        matrix["train-every-nth-25"].parameters["plan"] == "runs/own/nano-l/plans/every-nth-25.json"
        and "runs/own/nano-l/variants/every-nth-25/s42/record.json" in matrix["table3"].inputs
    )
    assert not any(
        "Counting" in f for f in matrix["benchmarks"].outputs
    )  # its questions stay where they are
    plain = stages(
        load_profile("smoke") | dict(extensions=["mine/rule.py"])
    )  # named, and nothing of it asked for
    assert all("mine/rule.py" not in s.inputs for s in plain) and "plans-own" not in [
        s.name for s in plain
    ]


def test_one_stage_really_runs_and_a_change_in_a_file_reruns_it(own):
    r = interlace("reproduce", "--profile", "own", "--cores", "1", "--only", "benchmarks", root=own)
    assert r.returncode == 0, r.stdout + r.stderr
    manifest = json.loads((own / "runs" / "own" / "benchmarks" / "manifest.json").read_text())
    assert (
        set(manifest["files"]) == {"POPE.parquet", "ScienceQA.parquet"}
        and manifest["added"]["Counting"]["rows"] == 6
    )
    (own / "mine" / "counting" / "metrics.py").write_text(METRIC + "\n# a change\n")
    r = interlace("reproduce", "--profile", "own", "--cores", "1", "--dry-run", root=own)
    assert r.returncode == 0 and {
        "» benchmarks",
        "» plans-own",
        "» train-every-nth-25",
        "» every-nth-25",
        "» table3",
    } <= set(r.stdout.splitlines()), r.stderr


def test_stages_import_them_and_records_name_them(own):
    "Run the notebooks of plans and evaluation with their parameters from the run matrix"
    from interlace.evaluation.benchmarks import prepare_benchmarks
    from interlace.evaluation.harness import added_exam

    matrix = {s.name: s for s in stages(load_profile("own"))}
    rng = np.random.default_rng(0)
    LayerScores.from_arrays({s: rng.random(36 - s) for s in (1, 2, 3)}, n_layers=36).to_json(
        own / matrix["plans-own"].parameters["scores"]
    )
    cells("stages/plans", matrix["plans-own"].parameters)
    plan = json.loads((own / matrix["plans-own"].outputs[0]).read_text())
    assert (
        plan["strategy"] == "every-nth"
        and len(plan["drop"]) == 9
        and list(plan["provenance"]["extensions"]) == ["mine/rule.py"]
    )
    folder = own / "runs" / "own" / "benchmarks"
    manifest = prepare_benchmarks(folder, "nano", ["POPE"], 2)
    import_extensions(["mine/counting"])
    (folder / "manifest.json").write_text(
        json.dumps(manifest | dict(added=dict(Counting=added_exam("Counting").about)))
    )
    asked = matrix["every-nth-25"].parameters | dict(
        trained=None, plan=matrix["plans-own"].outputs[0]
    )
    cells("stages/evaluate", asked)
    record = json.loads((own / asked["out"]).read_text())
    entry = record["direct"]["benchmarks"]["Counting"]
    assert (
        entry["n"] == 6
        and entry["category"] == "Perception"
        and entry["metric"] == "close"
        and set(record["direct"]["benchmarks"]) == {"POPE", "Counting"}
    )
    assert (
        record["data"]["Counting"]["fingerprint"] == entry["fingerprint"]
        and "mine/counting" in record["provenance"]["extensions"]
    )
    (folder / "manifest.json").write_text(
        json.dumps(manifest | dict(added=dict(Counting=dict(entry, rows=5))))
    )
    with pytest.raises(BadInput, match="the questions of Counting have changed"):
        cells("stages/evaluate", asked)


def test_by_hand(own):
    "The same files work with the commands `plan` and `evaluate`"
    scores = own / "scores.json"
    LayerScores.from_arrays({s: [0.5] * (36 - s) for s in (1, 2, 3)}, n_layers=36).to_json(scores)
    r = command(
        "plan",
        "--scores",
        scores,
        "--strategy",
        "every-nth",
        "--extension",
        own / "mine" / "rule.py",
        "--out",
        own / "plan.json",
    )
    assert (
        r.returncode == 0 and json.loads((own / "plan.json").read_text())["strategy"] == "every-nth"
    ), r.stderr
    r = command(
        "evaluate",
        "--tasks",
        "Counting",
        "--extension",
        own / "mine" / "counting",
        "--max-new-tokens",
        2,
        "--out",
        own / "record.json",
    )
    assert r.returncode == 0 and "Counting" in r.stdout, r.stderr
    r2 = command(
        "plan", "--scores", scores, "--extension", own / "nowhere.py", "--out", own / "none.json"
    )
    assert (
        r2.returncode == 2
        and "nowhere.py: no such file" in r2.stderr
        and not (own / "none.json").exists()
    )
    assert list(json.loads((own / "record.json").read_text())["provenance"]["extensions"]) == [
        "mine/rule.py",
        "mine/counting",
    ]  # both commands ran in this process


WRONG = [
    ("mine/rule.py", None, "mine/rule.py: no such file"),
    ("mine/rule.py", "x = (\n", "mine/rule.py, line 1: not Python"),
    (
        "mine/rule.py",
        RULE.replace("import interlace as il", "import interlace as il\n\n1/0"),
        "mine/rule.py, line 3: ZeroDivisionError",
    ),
    (
        "mine/rule.py",
        RULE.replace("'every-nth'", "'Random'"),
        "line 7: strategy 'Random': the name is taken",
    ),
    (
        "mine/rule.py",
        RULE.replace("'every-nth', every_nth", "'every-nth', 9"),
        "its rule is no function",
    ),
    (
        "mine/rule.py",
        RULE.replace("'every-nth'", "'every-kth'"),
        (
            "no such strategy; there are interlace, interlace-oa, interlace-tn, consecutive,"
            " random, every-kth"
        ),
    ),
    ("mine/counting/__init__.py", None, "no __init__.py"),
    ("mine/counting/metrics.py", "def close(:\n", "mine/counting (metrics.py), line 1: not Python"),
    (
        "mine/counting/__init__.py",
        BENCHMARK.replace("'Counting'", "'POPE'"),
        "benchmark 'POPE': the name is taken",
    ),
    (
        "mine/counting/__init__.py",
        BENCHMARK.replace("'Counting'", "'Count'"),
        "no such benchmark; there are AI2D",
    ),
]


@pytest.mark.parametrize("file, text, why", WRONG, ids=[w[-30:] for *_, w in WRONG])
def test_what_is_wrong_is_one_line_before_anything_runs(own, file, text, why):
    good = (own / file).read_text()
    (own / file).unlink() if text is None else (own / file).write_text(text)
    r = command("reproduce", "--profile", "own")
    assert r.returncode == 2 and r.stderr.count("\n") == 1 and why in r.stderr, r.stderr
    assert not (own / "runs").exists()
    (own / file).write_text(good)


def test_a_wrong_file_of_questions_or_metric(own):
    from interlace.evaluation.harness import add_benchmark, evaluate, local_exam
    from interlace.nano.model import nano_model, nano_processor

    processor = nano_processor()
    model, questions = (
        nano_model(processor=processor, layers=4),
        own / "mine" / "counting" / "questions.parquet",
    )
    _write_parquet(
        [dict(image=_png(scene("objects", "test", 0).draw()), question="How many?")],
        own / "none.parquet",
        ["image"],
    )
    try:
        for exam, why in (
            (local_exam(own / "nowhere.parquet", min), "no such file"),
            (local_exam(own / "settings.ini", min), "not readable as parquet"),
            (local_exam(own / "none.parquet", min), "column 'answer' is missing"),
            (lambda cot: None, "must give an Exam"),
            (local_exam(questions, lambda a, r, o: float(a)), "fails on the answer"),
            (local_exam(questions, lambda a, r, o: 7), "must lie between 0 and 1"),
        ):
            add_benchmark("Mine", exam, "GVQA")
            with pytest.raises(BadInput, match=why):
                evaluate(model, processor, ["Mine"], progress=False)
    finally:
        ADDED.clear()

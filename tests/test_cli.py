"""The console command: each subcommand on a small model, and each kind of bad input.

Bad input produces one clear line and status 2, and leaves nothing behind.
"""

import json
import shutil

import pytest
from conftest import ROOT, command, interlace

from interlace.core.files import locked
from interlace.core.profiles import load_profile
from interlace.method.saving import save
from interlace.method.selection import Plan
from interlace.nano.benchmarks import write_nano_benchmarks, write_nano_data
from interlace.nano.model import nano_model, nano_processor


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    "A folder with a small untrained model and data"
    d = tmp_path_factory.mktemp("cli")
    processor = nano_processor()
    save(nano_model(processor=processor, layers=12), processor, d / "model")
    write_nano_data(d / "data", fraction=0.0002)
    write_nano_benchmarks(d / "questions", 4, ["POPE", "AI2D"])
    return d


def ok(*args):
    r = command(*args)
    assert r.returncode == 0, r.stderr
    return r.stdout


# in this process, bars are shown
def refused(*args, why, root=None):
    r = interlace(*args, root=root) if root else command(*args)
    lines = [
        line
        for line in r.stderr.splitlines()
        if line and "it/s]" not in line and "?it" not in line and "examples/s]" not in line
    ]
    assert r.returncode == 2, r.stdout + r.stderr
    assert len(lines) == 1 and lines[0].startswith("interlace: ") and why in lines[0], r.stderr
    return lines[0]


def test_plan_prune_finetune_evaluate(work):
    said = ok(
        "plan",
        "--model",
        work / "model",
        "--calibration",
        work / "data" / "calibration.parquet",
        "--ratio",
        0.25,
        "--out",
        work / "plan.json",
    )
    plan = Plan.from_json(work / "plan.json")
    assert len(plan.drop) == 3 and str(list(plan.drop)) in said
    ok("prune", "--model", work / "model", "--plan", work / "plan.json", "--out", work / "pruned")
    assert json.loads((work / "pruned" / "interlace.json").read_text())["plan"]["drop"] == list(
        plan.drop
    )
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(work / "pruned")
    AutoProcessor.from_pretrained(work / "pruned")
    assert len(model.model.language_model.layers) == 9
    ok(
        "finetune",
        "--model",
        work / "pruned",
        "--data",
        work / "data" / "train.parquet",
        "--out",
        work / "tuned",
        "--batch-size",
        8,
        "--accumulation",
        1,
    )
    assert json.loads((work / "tuned" / "training.json").read_text())["steps"] == 5
    said = ok(
        "evaluate",
        "--model",
        work / "tuned",
        "--tasks",
        "POPE",
        "--data",
        work / "questions",
        "--out",
        work / "record.json",
    )
    record = json.loads((work / "record.json").read_text())
    assert "n = 4" in said and record["benchmarks"]["POPE"]["n"] == 4
    ok("card", work / "tuned", "--evaluation", work / "record.json")
    assert (
        f"| POPE | {record['benchmarks']['POPE']['score']:.1f} ±"
        in (work / "tuned" / "README.md").read_text()
    )
    said = ok(
        "report",
        work / "tuned",
        *("--before", work / "record.json", "--after", work / "record.json"),
        *("--out", work / "report.html"),
    )
    page = (work / "report.html").read_text()
    assert "report.html" in said and "0.0 [0.0, 0.0]" in page, "no difference to itself"
    for title in ("Plan", "Fine-tuning", "Scores", "Provenance"):
        assert f">{title}</h2>" in page
    ok("report", work / "tuned", "--out", work / "report.html", "--overwrite")
    stored = f"{record['benchmarks']['POPE']['score']:.1f} ±"
    assert stored in (work / "report.html").read_text()
    one = ("report", work / "tuned", "--before", work / "record.json", "--out", work / "no.html")
    refused(*one, why="--before and --after belong together")
    two = ("--before", work / "tuned" / "evaluation.json", "--after", work / "record.json")
    refused("report", work / "tuned", *two, "--out", work / "no.html", why="same questions")
    refused("report", "nano", *two, "--out", work / "no.html", why="of a model folder only")
    assert not (work / "no.html").exists()
    ok(
        "evaluate",
        "--model",
        work / "tuned",
        "--tasks",
        "POPE",
        "--data",
        work / "questions",
        "--cot",
        "--out",
        work / "cot.json",
    )
    assert json.loads((work / "cot.json").read_text())["cot"] is True
    said = ok(
        "latency",
        "--model",
        work / "model",
        "--plan",
        work / "plan.json",
        "--tokens",
        2,
        "--turns",
        1,
        "--out",
        work / "latency.json",
    )
    timed = json.loads((work / "latency.json").read_text())["variants"]
    assert "first token" in said and timed["model"]["layers"] == 12 and timed["plan"]["layers"] == 9
    (work / "other").mkdir()
    (work / "other" / "plan.json").write_text(
        (work / "plan.json").read_text()
    )  # of the same name: both are timed
    ok(
        "latency",
        "--model",
        work / "model",
        "--plan",
        work / "plan.json",
        work / "other" / "plan.json",
        "--tokens",
        2,
        "--turns",
        1,
        "--out",
        work / "latency.json",
        "--overwrite",
    )
    assert list(json.loads((work / "latency.json").read_text())["variants"]) == [
        "model",
        "plan",
        str(work / "other" / "plan.json"),
    ]
    timed = ("report", work / "tuned", "--latency")
    ok(*timed, work / "latency.json", "--out", work / "timed.html")
    page = (work / "timed.html").read_text()
    assert ">Latency</h2>" in page and "first token (ms)" in page
    refused(*timed, work / "record.json", "--out", work / "no.html", why="interlace latency --out")
    refused(*timed, work / "latency.json", "--out", work / "latency.json", why="latency")
    assert not (work / "no.html").exists()


def test_help():
    said = interlace("--help").stdout
    for name in (
        "reproduce",
        "plan",
        "prune",
        "finetune",
        "card",
        "push-to-hub",
        "evaluate",
        "latency",
        "profiles",
    ):
        assert name in said
        with pytest.raises(SystemExit) as e:
            command(name, "--help")
        assert e.value.code == 0


def test_unknown_profile():
    assert "nano, smoke" in refused(
        "reproduce", "--profile", "nanoo", why="no profile 'nanoo'", root=ROOT
    )


def test_unknown_stage():
    refused("reproduce", "--profile", "smoke", "--only", "figure9", why="no stage 'figure9'")


def test_wrong_ratio(work):
    refused(
        "plan",
        "--model",
        work / "model",
        "--calibration",
        work / "data" / "calibration.parquet",
        "--ratio",
        1.5,
        "--out",
        work / "no.json",
        why="ratio 1.5",
    )
    assert not (work / "no.json").exists()


def test_wrong_ratio_in_a_profile(project):
    settings = (project / "settings.ini").read_text()
    try:
        (project / "settings.ini").write_text(
            settings + "\n[wrong]\nextends = smoke\nratios = 1.5\n"
        )
        refused("reproduce", "--profile", "wrong", why="profile 'wrong': ratios 1.5", root=project)
    finally:
        (project / "settings.ini").write_text(settings)


def test_missing_model(work):
    refused("evaluate", "--model", work / "nowhere", why="no such model folder")


def test_an_option_that_is_no_number_is_one_line(tmp_path):
    r = interlace("prune", "--model", "nano-l", "--ratio", "25%", "--out", tmp_path / "out")
    said = "argument --ratio: '25%' is no number; give a share, e.g. 0.25; interlace prune --help"
    assert r.returncode == 2 and r.stderr == f"interlace: {said} lists the options\n"


def test_a_folder_without_a_model(tmp_path):
    refused("evaluate", "--model", tmp_path, why="no config.json in that folder")


@pytest.mark.parametrize(
    "option, value, why",
    [
        ("--strategy", "nope", "no strategy 'nope'; there are interlace"),
        ("--protect", 40, "protect 40: it must be a number of layers from 0 to"),
    ],
)
def test_a_wrong_choice_is_refused_before_the_calibration_set_is_read(
    work, tmp_path, option, value, why
):
    args = ("--model", work / "model", "--calibration", tmp_path / "none.parquet")
    refused("prune", *args, option, value, "--out", tmp_path / "out", why=why)


@pytest.mark.parametrize(
    "name, value, why",
    [
        ("dtype", 3, "config.json has the dtype 3"),
        (
            "image_token_id",
            -1,
            "config.json has image_token_id -1, and the vocabulary has tokens 0",
        ),
        ("image_token_id", 10**6, "config.json has image_token_id 1000000"),
        ("vision_config", dict(depth=10**9), "config.json has depth 1000000000; no model has more"),
        ("num_hidden_layers", 10**9, "config.json has num_hidden_layers 1000000000; no model"),
        ("model_type", "qwen9_vl", "knows no model type 'qwen9_vl'"),
    ],
)
def test_a_configuration_that_cannot_be_used(work, tmp_path, name, value, why):
    shutil.copytree(work / "model", tmp_path / "m")
    config = tmp_path / "m" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {name: value}))
    refused("evaluate", "--model", tmp_path / "m", why=why)


@pytest.mark.parametrize(
    "file, why",
    [
        ("model.safetensors", "its weights cannot be read"),
        ("config.json", "no readable config.json"),
        ("processor_config.json", "no readable processor"),
    ],
)
def test_truncated_model(work, tmp_path, file, why):
    shutil.copytree(work / "model", tmp_path / "m")
    whole = (tmp_path / "m" / file).read_bytes()
    (tmp_path / "m" / file).write_bytes(whole[: len(whole) // 2])
    refused(
        "prune",
        "--model",
        tmp_path / "m",
        "--plan",
        work / "plan.json",
        "--out",
        tmp_path / "out",
        why=why,
    )
    assert not (tmp_path / "out").exists()


def test_missing_weights(work, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(work / "model", tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    weights.pop("model.language_model.layers.4.mlp.up_proj.weight")
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    refused("evaluate", "--model", tmp_path / "m", why="1 weights are missing")


def test_scores_of_another_model(work, tmp_path):
    from interlace.method.layer_scores import LayerScores

    LayerScores.from_arrays({s: [0.5] * (36 - s) for s in (1, 2, 3)}, n_layers=36).to_json(
        tmp_path / "scores.json"
    )
    refused(
        "plan",
        "--model",
        work / "model",
        "--scores",
        tmp_path / "scores.json",
        "--out",
        tmp_path / "plan.json",
        why="36 layers and this one has 12",
    )


def test_scores_of_another_model_of_the_same_depth(work, tmp_path):
    other, processor = nano_model(processor=nano_processor(), layers=12, seed=7), nano_processor()
    save(other, processor, tmp_path / "other")
    ok(
        "plan",
        "--model",
        tmp_path / "other",
        "--calibration",
        work / "data" / "calibration.parquet",
        "--out",
        tmp_path / "its.json",
    )
    from interlace.data.conversations import calibration_batches, load_samples
    from interlace.method.similarity import score_layers

    score_layers(
        other,
        calibration_batches(load_samples(work / "data" / "calibration.parquet"), processor),
        progress=False,
        source="other",
    ).to_json(tmp_path / "scores.json")
    ok(
        "plan",
        "--model",
        tmp_path / "other",
        "--dtype",
        "bfloat16",
        "--scores",
        tmp_path / "scores.json",
        "--out",
        tmp_path / "again.json",
    )  # its own, whatever the precision
    assert Plan.from_json(tmp_path / "again.json") == Plan.from_json(tmp_path / "its.json")
    refused(
        "plan",
        "--model",
        work / "model",
        "--scores",
        tmp_path / "scores.json",
        "--out",
        tmp_path / "plan.json",
        why="the scores are of another model (other)",
    )
    assert not (tmp_path / "plan.json").exists()


def test_corrupt_image_in_a_benchmark(work, tmp_path):
    from datasets import Dataset, Value

    rows = (
        Dataset.from_parquet(str(work / "questions" / "POPE.parquet"))
        .cast_column("image", {"bytes": Value("binary"), "path": Value("string")})
        .to_list()
    )
    rows[2]["image"]["bytes"] = rows[2]["image"]["bytes"][:40]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "POPE.parquet"))
    refused(
        "evaluate",
        "--model",
        work / "model",
        "--tasks",
        "POPE",
        "--data",
        tmp_path,
        "--out",
        tmp_path.parent / "record.json",
        why="POPE.parquet question POPE/2: the image cannot be decoded",
    )
    assert not (tmp_path.parent / "record.json").exists()


def test_a_model_that_was_not_pruned_needs_a_plan(work, tmp_path):
    refused(
        "finetune",
        "--model",
        work / "model",
        "--data",
        work / "data" / "train.parquet",
        "--out",
        tmp_path / "out",
        why="no interlace.json there",
    )


def test_weights_without_a_place(work, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(work / "model", tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    weights["model.language_model.layers.12.mlp.up_proj.weight"] = weights[
        "model.language_model.layers.11.mlp.up_proj.weight"
    ].clone()
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    refused("evaluate", "--model", tmp_path / "m", why="1 weights have no place in the model")


def test_a_mistyped_folder_is_not_taken_for_a_hub_id(work):
    refused("evaluate", "--model", "tests/modle", why="no such model folder")


def test_corrupt_image(work, tmp_path):
    from datasets import Dataset, List, Value

    rows = (
        Dataset.from_parquet(str(work / "data" / "train.parquet"))
        .cast_column("images", List({"bytes": Value("binary"), "path": Value("string")}))
        .to_list()
    )
    rows[3]["images"][0]["bytes"] = rows[3]["images"][0]["bytes"][:40]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "bad.parquet"))
    line = refused(
        "plan",
        "--model",
        work / "model",
        "--calibration",
        tmp_path / "bad.parquet",
        "--out",
        tmp_path / "plan.json",
        why="cannot be decoded",
    )
    assert rows[3]["id"] in line


def test_an_image_by_its_path(work, tmp_path):
    "A row may name a file only in a folder that the user allows"
    from datasets import Dataset, List, Value

    rows = (
        Dataset.from_parquet(str(work / "data" / "calibration.parquet"))
        .cast_column("images", List({"bytes": Value("binary"), "path": Value("string")}))
        .to_list()
    )
    inside, outside = tmp_path / "mine" / "a.png", tmp_path / "other.png"
    inside.parent.mkdir()
    for file in (inside, outside):
        file.write_bytes(rows[0]["images"][0]["bytes"])
    args = ("scores", "--model", work / "model", "--out", tmp_path / "s.json")
    args += ("--calibration", tmp_path / "named.parquet")

    def name(path):
        rows[0]["images"][0] = dict(bytes=None, path=str(path))
        Dataset.from_list(rows).to_parquet(str(tmp_path / "named.parquet"))

    name("a.png")
    line = refused(*args, why="--images-from")
    assert rows[0]["id"] in line and "'a.png'" in line
    refused(*args, "--images-from", tmp_path / "none", why="no such folder")
    for path in (outside, "../other.png", "http://localhost/a.png"):
        name(path)
        refused(*args, "--images-from", inside.parent, why="--images-from")
    for path in (inside, "a.png"):
        name(path)
        ok(*args, "--images-from", inside.parent, "--overwrite")
    named = json.loads((tmp_path / "s.json").read_text())["per_sample"]
    ok(
        "scores",
        "--model",
        work / "model",
        "--out",
        tmp_path / "t.json",
        "--calibration",
        work / "data" / "calibration.parquet",
    )
    assert named == json.loads((tmp_path / "t.json").read_text())["per_sample"]


def test_evaluate_held_out_conversations(work, tmp_path):
    "A file in the schema of the training data: exact match, and the loss that training lowers"
    from interlace.data.conversations import load_samples
    from interlace.method.finetuning import held_out_loss
    from interlace.models.loading import load_model

    held_out = work / "data" / "calibration.parquet"
    said = ok("evaluate", "--model", work / "model", "--data", held_out, "--out", tmp_path / "r")
    record = json.loads((tmp_path / "r").read_text())
    model, processor = load_model(str(work / "model"), "float32")
    samples = load_samples(held_out)
    answers = record["answers"]["calibration"]
    assert [a["reference"] for a in answers] == [s["texts"][0]["assistant"] for s in samples]
    assert (
        record["held_out_loss"]["samples"]
        == len(samples)
        == record["benchmarks"]["calibration"]["n"]
    )
    loss = held_out_loss(model, samples, processor, bfloat16=False)
    assert record["held_out_loss"]["loss"] == pytest.approx(loss, abs=1e-5)
    assert f"{loss:.4f} nats" in said
    refused(
        "evaluate", "--model", work / "model", "--data", held_out, "--tasks", "POPE", why="--tasks"
    )


def test_json_for_scripts(work):
    "--json prints one JSON value and nothing else, without NaN"
    said = json.loads(ok("profiles", "--json"))
    assert said["nano"]["ratios"] == load_profile("nano")["ratios"]
    args = ("--model", work / "model", "--json")
    record = json.loads(ok("evaluate", *args, "--tasks", "POPE", "--data", work / "questions"))
    assert record["benchmarks"]["POPE"]["n"] == 4 and "answers" not in record
    timed = json.loads(ok("latency", *args, "--turns", 1, "--tokens", 2))
    assert timed["variants"]["model"]["ttft_s"]["n"] == 1


def test_a_reader_that_ends_early(work):
    "As with `interlace profiles | head -1`: no traceback, and the status of a broken pipe"
    import subprocess
    import sys

    command = [sys.executable, "-m", "interlace.cli", "profiles", "--json"]
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    p.stdout.close()
    said = p.stderr.read().decode()
    assert p.wait() == 141 and said == ""


def test_weights_outside_the_folder(work, tmp_path):
    "An index of shards may name the files of its own folder only"
    shutil.copytree(work / "model", tmp_path / "m")
    index = dict(weight_map={"lm_head.weight": "../../model/model.safetensors"})
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(
        "latency",
        "--model",
        tmp_path / "m",
        why="names the weights '../../model/model.safetensors'",
    )


def test_two_commands_never_write_to_one_place(work, tmp_path):
    "The second is refused while the first runs; the lock is gone with the first"
    args = ("scores", "--model", work / "model", "--out", tmp_path / "s.json")
    args += ("--calibration", work / "data" / "calibration.parquet")
    with locked(tmp_path / "s.json"):
        refused(*args, why="another command is writing there")
    ok(*args)
    assert [f.name for f in tmp_path.iterdir()] == ["s.json"]


def test_a_line_stays_a_line(work, tmp_path):
    "Control characters in a name are not sent to the terminal"
    line = refused("latency", "--model", f"{tmp_path}/no\x1b[2J\nmodel", why="no such model folder")
    assert line.isprintable()


def test_broken_parquet(work, tmp_path):
    (tmp_path / "half.parquet").write_bytes((work / "data" / "train.parquet").read_bytes()[:500])
    refused(
        "plan",
        "--model",
        work / "model",
        "--calibration",
        tmp_path / "half.parquet",
        "--out",
        tmp_path / "plan.json",
        why="half.parquet",
    )


def test_unwritable_output(work, tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused(
        "prune",
        "--model",
        work / "model",
        "--plan",
        work / "plan.json",
        "--out",
        tmp_path / "file" / "out",
        why="cannot be written",
    )


def test_unwritable_figures(tmp_path):
    (tmp_path / "nbs").mkdir()
    shutil.copy(ROOT / "settings.ini", tmp_path)
    shutil.copytree(
        ROOT / "interlace",
        tmp_path / "interlace",
        ignore=shutil.ignore_patterns("weights", "__pycache__"),
    )
    (tmp_path / "interlace" / "weights").symlink_to(ROOT / "interlace" / "weights")
    (tmp_path / "figures").write_text("in the way")
    refused("reproduce", "--profile", "smoke", why="figures: cannot be written", root=tmp_path)


def test_a_folder_that_holds_something_else_is_not_replaced(work, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    refused(
        "prune",
        "--model",
        work / "model",
        "--calibration",
        work / "data" / "calibration.parquet",
        "--out",
        tmp_path,
        why="holds something else than a model",
    )
    refused(
        "plan",
        "--model",
        work / "model",
        "--calibration",
        work / "data" / "calibration.parquet",
        "--out",
        tmp_path,
        why="a folder is in the way",
    )
    assert (tmp_path / "mine.txt").read_text() == "precious"


def tree(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    "args, why",
    [
        (("prune", "--out", "models"), "the model (HERE/models/mine) is in it"),
        (("prune", "--out", "models/mine"), "that is the model itself"),
        (("prune", "--out", "link"), "that is the model itself"),
        (("prune", "--out", "models/mine/pruned"), "inside the model"),
        (("prune", "--out", "other"), "already there"),
        (("prune", "--out", "other", "--overwrite"), "not written by interlace"),
        (("finetune", "--out", "models/mine"), "that is the model itself"),
        (("finetune", "--out", "models"), "is in it"),
        (("scores", "--out", "data.parquet"), "that is the calibration itself"),
        (("plan", "--out", "data.parquet", "--overwrite"), "that is the calibration itself"),
        (("prune", "--out", "elsewhere"), "a link"),
        (("evaluate", "--out", "notes.txt"), "already there"),
        (("latency", "--out", "notes.txt"), "already there"),
    ],
)
def test_a_users_work_is_never_destroyed(work, tmp_path, args, why):
    """Output that would destroy an input is refused before any work, and every file is kept

    Such outputs are the model, a folder above or inside it, a link to it, and the data.
    """
    shutil.copytree(work / "model", tmp_path / "models" / "mine")
    shutil.copytree(work / "model", tmp_path / "other")
    shutil.copy(work / "data" / "calibration.parquet", tmp_path / "data.parquet")
    (tmp_path / "notes.txt").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "models" / "mine")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "other")
    before = tree(tmp_path)
    name, _, out, *more = args
    data = {
        "prune": "--calibration",
        "plan": "--calibration",
        "scores": "--calibration",
        "finetune": "--data",
    }.get(name)
    refused(
        name,
        "--model",
        tmp_path / "models" / "mine",
        *((data, tmp_path / "data.parquet") if data else ()),
        "--out",
        tmp_path / out,
        *more,
        why=why.replace("HERE", str(tmp_path)),
    )
    assert tree(tmp_path) == before


def test_what_a_command_wrote_it_may_replace_when_asked(work, tmp_path):
    "The new output also has the permissions of any new file"
    args = (
        "prune",
        "--model",
        work / "model",
        "--ratio",
        0.25,
        "--calibration",
        work / "data" / "calibration.parquet",
        "--out",
        tmp_path / "p",
    )
    ok(*args)
    refused(*args, why="already there")
    ok(*args, "--overwrite")
    (tmp_path / "plain").write_text("")
    assert {f.stat().st_mode for f in (tmp_path / "p").iterdir()} == {
        (tmp_path / "plain").stat().st_mode
    }


def test_the_record_is_there_though_nobody_reads_what_is_printed(work, tmp_path):
    import subprocess
    import sys

    code = "import sys; sys.stdout.close(); from interlace.cli import main; main(sys.argv[1:])"
    subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "evaluate",
            "--model",
            str(work / "model"),
            "--tasks",
            "POPE",
            "--data",
            str(work / "questions"),
            "--out",
            str(tmp_path / "r.json"),
        ],
        capture_output=True,
    )
    assert json.loads((tmp_path / "r.json").read_text())["benchmarks"]["POPE"]["n"] == 4


@pytest.mark.parametrize("value, why", [(float("nan"), "not finite"), (None, "I8")])
def test_weights_that_are_no_numbers(work, tmp_path, value, why):
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(work / "model", tmp_path / "m")
    weights, name = (
        load_file(tmp_path / "m" / "model.safetensors"),
        "model.language_model.layers.3.mlp.up_proj.weight",
    )
    if value is None:
        weights[name] = weights[name].to(torch.int8)
    else:
        weights[name][0, 0] = value
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    assert name in refused("evaluate", "--model", tmp_path / "m", "--tasks", "POPE", why=why)


def test_a_configuration_without_its_sizes_takes_no_memory(work, tmp_path):
    "transformers would fill them in: billions of weights, allocated before any is missed"
    folder = shutil.copytree(work / "model", tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | dict(text_config={})))
    why = "they do not belong together"
    assert "config.json" in refused("evaluate", "--model", folder, "--tasks", "POPE", why=why)


# before: good images in the same row
@pytest.mark.parametrize("row, named, before", [(dict(id="r9"), "r9", 0), ({}, "row 3", 1)])
def test_evaluate_names_the_row_of_an_image_that_cannot_be_read(work, tmp_path, row, named, before):
    "Numbers without a range are no colours; rows count as in the file, also behind one left out"
    import io

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image as Picture

    def stored(picture, form):
        picture.save(file := io.BytesIO(), form)
        return dict(bytes=file.getvalue(), path=None)

    good = stored(Picture.new("RGB", (40, 40), "red"), "PNG")
    bad = stored(Picture.fromarray(np.full((40, 40), 0.5, np.float32)), "TIFF")
    turn = dict(user="Which colour is it?", assistant="red")
    fine = dict(images=[good], texts=[turn])
    rows = [
        dict(images=[], texts=[]),
        fine,
        fine,
        dict(images=[good] * before + [bad], texts=[turn]),
    ]
    rows = [r | dict.fromkeys(row, f"a{i}") for i, r in enumerate(rows)]
    rows[3] |= row
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    asked = ("evaluate", "--model", work / "model", "--data", tmp_path / "data.parquet")
    assert f"data.parquet: {named}: " in refused(*asked, why=named)


def test_a_missing_shard_is_named(work, tmp_path):
    folder = shutil.copytree(work / "model", tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    index = dict(metadata={}, weight_map={f"w{i}": shard for i, shard in enumerate(shards)})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    why = f"{shards[1]}, and that file is missing"
    refused("evaluate", "--model", folder, "--tasks", "POPE", why=why)


def test_tables_that_no_file_holds_take_no_memory(tmp_path):
    "GPT-Neo has a mask of positions times positions in every layer"
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    from interlace.core.errors import BadInput
    from interlace.models.loading import _check_size, load_config

    kinds = [[["global"], 12]]
    sizes = dict(hidden_size=16, num_layers=12, num_heads=2, vocab_size=64)
    config = GPTNeoConfig(**sizes, attention_types=kinds, max_position_embeddings=64)
    GPTNeoForCausalLM(config).save_pretrained(tmp_path / "m")
    saved = json.loads((tmp_path / "m" / "config.json").read_text())
    saved |= dict(max_position_embeddings=12_000)
    (tmp_path / "m" / "config.json").write_text(json.dumps(saved))
    with pytest.raises(BadInput, match="do not belong together"):
        _check_size("m", tmp_path / "m", load_config(str(tmp_path / "m")))


def test_code_in_a_model_folder_never_runs(work, tmp_path):
    "Code is not run, whatever standard input answers"
    import os
    import subprocess
    import sys

    shutil.copytree(work / "model", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config |= dict(
        model_type="own",
        auto_map=dict(AutoConfig="own.OwnConfig", AutoModelForImageTextToText="own.OwnModel"),
    )
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "own.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\nfrom transformers import Qwen3VLConfig as"
        " OwnConfig, Qwen3VLForConditionalGeneration as OwnModel\n"
    )
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "interlace.cli",
            "evaluate",
            "--model",
            str(tmp_path / "m"),
            "--tasks",
            "POPE",
        ],
        input="y\ny\ny\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert (
        run.returncode == 2
        and "code of its own, which is never run" in run.stderr
        and not (tmp_path / "ran").exists()
    )


def test_a_plan_that_is_not_the_folders_own(work, tmp_path):
    own = Plan.from_json(work / "plan.json")
    ok("prune", "--model", work / "model", "--plan", work / "plan.json", "--out", tmp_path / "p")
    Plan(
        drop=tuple(d + 1 for d in own.drop),
        tune=(),
        anchor=(),
        n_layers=12,
        strategy="other",
        ratio=0.25,
    ).to_json(tmp_path / "other.json")
    refused(
        "finetune",
        "--model",
        tmp_path / "p",
        "--plan",
        tmp_path / "other.json",
        "--data",
        work / "data" / "train.parquet",
        "--out",
        tmp_path / "t",
        why="not the plan that",
    )


@pytest.mark.parametrize(
    "option, value, why",
    [
        ("--learning-rate", "1e30", "learning_rate 1e+30"),
        ("--learning-rate", "nan", "learning_rate nan"),
        ("--epochs", "0", "epochs 0"),
        ("--seed", "-1", "seed -1"),
    ],
)
def test_training_that_cannot_be(work, tmp_path, option, value, why):
    ok("prune", "--model", work / "model", "--plan", work / "plan.json", "--out", tmp_path / "p")
    refused(
        "finetune",
        "--model",
        tmp_path / "p",
        "--data",
        work / "data" / "train.parquet",
        "--out",
        tmp_path / "t",
        "--batch-size",
        4,
        "--accumulation",
        1,
        option,
        value,
        why=why,
    )
    assert not (tmp_path / "t").exists()


def test_numbers_that_make_no_sense(work):
    for args in (("--batch-size", "0"), ("--questions", "-3")):
        with pytest.raises(SystemExit) as e:
            command("evaluate", "--model", work / "model", *args)
        assert e.value.code == 2


def test_report_of_a_run(tmp_path):
    "One page holds every figure and table of a profile, and needs no other file"
    ok("report", "nano", "--out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    records = [json.loads(p.read_text()) for p in (ROOT / "tables" / "nano").glob("*.json")]
    assert all(f">{r['name'].capitalize()}</h2>" in page for r in records if r["kind"] == "table")
    assert "src=" not in page.replace('src="data:', "") and "<script" not in page
    line = refused("report", "nana", "--out", tmp_path / "no.html", why="no results there")
    assert "interlace reproduce --profile nana" in line and not (tmp_path / "no.html").exists()
    refused("report", "nano", "--out", tmp_path / "report.html", why="already there")


@pytest.mark.parametrize(
    "args, why",
    [
        (("evaluate", "--seed", 2**70), f"seed {2**70}"),
        (("plan", "--seed", -1, "--out", "no.json"), "seed -1"),
        (("evaluate", "--temperature", "inf"), "temperature inf"),
        (("evaluate", "--temperature", "nan"), "temperature nan"),
        (("latency", "--tokens", 1), "tokens 1"),
        (("reproduce", "--profile", ""), "--profile is empty"),
        (("plan", "--scores", "s" * 300, "--out", "no.json"), "File name too long"),
    ],
)
def test_values_that_no_command_can_use(args, why):
    refused(*args, why=why)


@pytest.mark.parametrize(
    "settings, why",
    [
        ([], "not a JSON object"),
        (dict(schedule="nosuch"), "schedule 'nosuch': it must be one of linear"),
        (dict(workers=-1), "workers -1"),
        (dict(bfloat16="yes"), "bfloat16 'yes': it must be true or false"),
        (dict(gradient_checkpointing=3), "gradient_checkpointing 3: it must be true or false"),
        (dict(optimizer="adam"), "optimizer 'adam': a file cannot hold it"),
        (dict(max_length="x"), "max_length x"),
    ],
)
def test_training_settings_from_a_file_are_checked_before_the_data(work, tmp_path, settings, why):
    ok("prune", "--model", work / "model", "--plan", work / "plan.json", "--out", tmp_path / "p")
    (tmp_path / "s.json").write_text(json.dumps(settings))
    args = ("--model", tmp_path / "p", "--data", "none.parquet", "--out", tmp_path / "t")
    refused("finetune", *args, "--settings", tmp_path / "s.json", why=why)


def test_a_damaged_record_is_one_line(work, tmp_path):
    "Also in finetune, which would find out only after the training"
    ok("prune", "--model", work / "model", "--plan", work / "plan.json", "--out", tmp_path / "p")
    record = tmp_path / "p" / "interlace.json"
    made = json.loads(record.read_text())
    data = ("--data", work / "data" / "train.parquet")
    asked = ("--model", tmp_path / "p", "--tasks", "POPE", "--data", work / "questions")
    ok("evaluate", *asked, "--out", tmp_path / "r.json")
    evaluation = json.loads((tmp_path / "r.json").read_text()) | dict(average={})
    (tmp_path / "r.json").write_text(json.dumps(evaluation))
    refused("card", tmp_path / "p", "--evaluation", tmp_path / "r.json", why="damaged")
    assert not (tmp_path / "p" / "evaluation.json").exists()
    (tmp_path / "r.json").unlink()
    for damaged in (made | dict(parameters=None), made | dict(base=None), [made]):
        record.write_text(json.dumps(damaged))
        why = "not a record" if isinstance(damaged, list) else "a record there is damaged"
        refused("card", tmp_path / "p", why=why)
        refused("report", tmp_path / "p", "--out", tmp_path / "r.html", why=why)
        args = ("finetune", "--model", tmp_path / "p", *data, "--out", tmp_path / "t")
        refused(*args, why="interlace.json: a record there is damaged")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["p"]


def test_an_error_in_a_strategy_names_it(work, tmp_path):
    code = "import interlace as il\n\n\ndef odd(*a, **k):\n    return 1 / 0\n\n\n"
    (tmp_path / "odd.py").write_text(f"{code}il.add_strategy('odd', odd)\n")
    args = ("--extension", tmp_path / "odd.py", "--strategy", "odd", "--out", tmp_path / "p.json")
    data = ("--calibration", work / "data" / "calibration.parquet")
    why = "strategy 'odd': ZeroDivisionError: division by zero; correct the extension"
    refused("plan", "--model", work / "model", *data, *args, why=why)


def test_overwrite_replaces_only_what_the_same_command_wrote(work, tmp_path):
    args = ("plan", "--model", work / "model", "--overwrite", "--out", tmp_path / "out")
    args += ("--calibration", work / "data" / "calibration.parquet")
    for content in ("precious", json.dumps(dict(kind="scores")), "[]"):
        (tmp_path / "out").write_text(content)
        refused(*args, why="not written by interlace plan")
        assert (tmp_path / "out").read_text() == content
    shutil.copy(work / "plan.json", tmp_path / "out")
    ok(*args)
    (tmp_path / "out").write_text("precious")
    args = ("report", "nano", "--out", tmp_path / "out", "--overwrite")
    refused(*args, why="not written by interlace report")


def test_a_report_is_not_written_into_what_it_reads(work, tmp_path):
    ok("prune", "--model", work / "model", "--plan", work / "plan.json", "--out", tmp_path / "p")
    before = tree(tmp_path)
    for name in ("new.html", "README.md"):
        args = ("report", tmp_path / "p", "--out", tmp_path / "p" / name, "--overwrite")
        refused(*args, why="it is inside the folder")
    assert tree(tmp_path) == before


def test_bars_are_for_terminals(work, tmp_path):
    data = ("--calibration", work / "data" / "calibration.parquet", "--out", tmp_path / "s.json")
    assert "scoring" not in command("scores", "--model", work / "model", *data).stderr
    asked = ("--tasks", "POPE", "--data", work / "questions")
    assert "evaluating" not in command("evaluate", "--model", work / "model", *asked).stderr


def test_damaged_weights_are_one_line_in_a_process_of_their_own(work, tmp_path):
    "A library prints tables, to a stream that a test in this process does not see"
    shutil.copytree(work / "model", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 13
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    refused("latency", "--model", tmp_path / "m", why="weights are missing", root=ROOT)

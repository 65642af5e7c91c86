"""Tries bad and unusual inputs on the whole command line: `python tests/probes.py [KIND ...]`.

Each probe is one command in this process, on a small untrained model and a few samples. A bad
input must end with exit status 2 and one clear line that names the place, and must leave nothing
behind. An unusual but good input must work, and where a second route exists, give the same result.
A Markdown table of the outcomes by kind goes to standard output, what went wrong to standard error.
It is no part of `make test`: a full turn takes a quarter of an hour.
"""

import contextlib
import copy
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from pathlib import Path

for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TQDM_DISABLE"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # as the command does before the imports
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402 (the environment comes first)
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from interlace.cli import main  # noqa: E402
from interlace.core.profiles import SETTINGS  # noqa: E402
from interlace.method.saving import save  # noqa: E402
from interlace.nano.benchmarks import write_nano_benchmarks  # noqa: E402
from interlace.nano.model import nano_model, nano_processor  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120  # seconds that one command may take
LAYERS = 8
EITHER = "either"  # damage that a command may not need to notice: one clear line, or it works
KINDS = {}


def kind(title):
    "Register a generator of probes under the title that the table shows"

    def register(probes):
        KINDS[title] = probes
        return probes

    return register


# ------------------------------------------------------------------ running one command


class TooSlow(BaseException):
    "A command took longer than PATIENCE"


def _too_slow(*_):
    raise TooSlow


@contextlib.contextmanager
def errors_caught():
    "Collect what goes to standard error, also from libraries that hold the stream; yields a list"
    lines = []
    with tempfile.TemporaryFile() as file:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()


def attempt(argv):
    "Run a command; (exit status, its lines, the place of an exception that escaped)"
    status, escaped, lines = None, "", []
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(PATIENCE)
    try:
        with contextlib.redirect_stdout(io.StringIO()), errors_caught() as lines:
            status = main([str(a) for a in argv])
    except SystemExit as e:  # what argparse does, after a line of usage
        status = e.code
    except BaseException as e:  # noqa: B036 (whatever escapes is what this looks for)
        places = [f for f in traceback.extract_tb(e.__traceback__) if "interlace" in f.filename]
        at = f"{Path(places[-1].filename).name}:{places[-1].lineno}" if places else "?"
        escaped = f"{type(e).__name__} at {at}: {' '.join(str(e).split())[:150]}"
    finally:
        signal.alarm(0)
    bars = ("it/s]", "?it", "s/it]", "examples/s]")  # in this process they are shown
    said = [line for line in lines if line.strip() and not any(b in line for b in bars)]
    return status, said, escaped


def refusal(lines):
    "The one line of a refusal; argparse prints how to call the command before it"
    lines = [line for line in lines if not line.startswith(("usage:", "  "))]
    return lines[0] if len(lines) == 1 and lines[0].startswith("interlace") else None


def files_of(folder):
    "What a folder holds: paths, and of files size and time"
    found = {}
    for p in sorted(folder.rglob("*")):
        s = p.lstat()
        found[str(p)] = (s.st_size, s.st_mtime_ns) if p.is_file() and not p.is_symlink() else None
    return found


def judge(world, argv, says, check=None):
    "Run a probe; (its outcome, what to say about it)"
    before = files_of(world.here)
    status, lines, escaped = attempt(argv)
    line = refusal(lines)
    if escaped:
        return "traceback", escaped
    if status == 2 and says is not None:
        left = {p for p, v in files_of(world.here).items() if before.get(p, "new") != v}
        if line is None:
            return "wrong", f"no single line: {lines}"
        if says != EITHER and says not in line:
            return "wrong", f"the line does not say '{says}': {line}"
        return ("wrong", f"left behind: {sorted(left)}") if left else ("line", line)
    if status == 0 and says in (None, EITHER):
        problem = check() if check else None
        return ("wrong", problem) if problem else ("right", "")
    return "wrong", f"status {status}, {'accepted' if status == 0 else lines[-2:]}"


# ------------------------------------------------------------------ what the probes start from


def png(image, form="PNG", **options):
    "An image as bytes"
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


RED = Image.new("RGB", (48, 40), (200, 30, 30))
TURN = dict(user="What colour is it?", assistant="red")
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TURN_TYPE = pa.struct([("user", pa.string()), ("assistant", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("images", pa.list_(IMAGE_TYPE)),
        ("texts", pa.list_(TURN_TYPE)),
    ]
)


def row(i=0, images=(RED,), texts=(TURN,)):
    "A row in FineVision's schema; an image may be bytes, PIL's, or None"
    stored = None
    if images is not None:
        made = [png(x) if isinstance(x, Image.Image) else x for x in images]
        stored = [x if isinstance(x, dict) else dict(bytes=x, path=None) for x in made]
    texts = None if texts is None else list(texts)
    return dict(id=f"r{i}", source="own", images=stored, texts=texts)


def write(path, rows, schema=SCHEMA):
    "Write rows as a parquet file; returns the path"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


class World:
    "Good inputs, made once, and an empty folder for each probe"

    def __init__(self, folder):
        self.folder, self.here, self.turns = folder, folder, 0
        self.model, self.data, self.asked = folder / "model", folder / "data", folder / "asked"
        processor = nano_processor()
        save(nano_model(processor=processor, layers=LAYERS), processor, self.model)
        self.data.mkdir()
        self.rows = [row(i, texts=[dict(user=f"Question {i}?", assistant="red")]) for i in range(4)]
        self.samples = write(self.data / "samples.parquet", self.rows)
        write_nano_benchmarks(self.asked, 4, ["POPE"])
        self.scores, self.plan = folder / "scores.json", folder / "plan.json"
        self.pruned, self.tuned = folder / "pruned", folder / "tuned"
        self.record = folder / "record.json"
        self.run("scores", *self.of_model, "--calibration", self.samples, "--out", self.scores)
        self.run("plan", *self.of_model, "--scores", self.scores, "--out", self.plan)
        self.run("prune", *self.of_model, "--scores", self.scores, "--out", self.pruned)
        self.run("finetune", *self.training(self.pruned), "--out", self.tuned)
        self.run("evaluate", *self.asking(self.tuned), "--out", self.record)
        self.run("card", self.tuned, "--evaluation", self.record)

    @property
    def of_model(self):
        return ("--model", self.model)

    def training(self, model, data=None):
        "Options of a short fine-tuning"
        short = ("--batch-size", 2, "--accumulation", 1, "--max-length", 512)
        return ("--model", model, "--data", data or self.samples, *short)

    def asking(self, model):
        "Options of a short evaluation"
        return ("--model", model, "--tasks", "POPE", "--data", self.asked, "--max-new-tokens", 2)

    def run(self, *argv):
        "Run a command that must work"
        status, lines, escaped = attempt(argv)
        if status:
            raise SystemExit(f"{argv}: {status} {lines} {escaped}")

    def fresh(self):
        "An empty folder for the next probe"
        if self.here != self.folder:
            shutil.rmtree(self.here)
        self.turns += 1
        self.here = self.folder / "probes" / str(self.turns)
        self.here.mkdir(parents=True)
        return self.here

    def file(self, name, content):
        "A new file in an empty folder: text, bytes, or what is written as JSON"
        path = self.fresh() / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def copy(self, folder):
        "A copy of a folder, to damage"
        to = self.fresh() / folder.name
        shutil.copytree(folder, to)
        return to


# ------------------------------------------------------------------ options


def option_values():
    "(command, option, wrong value, word that the refusal says)"
    for value in ("nan", "inf", "-0.1", "1", "1.5", "1e9", "0,25", "", "half"):
        yield "plan", "--ratio", value, "ratio"
    for value in ("nosuch", "", "Interlace", "interlace-25", "../x"):
        yield "plan", "--strategy", value, "strategy"
    for value in ("-1", str(LAYERS), "99", "x", "1.5"):
        yield "plan", "--protect", value, "protect"
    for command in ("plan", "scores", "evaluate", "latency", "finetune"):
        for value in ("0", "-1", "1.5", "x", "", "²", "1e3"):
            yield command, "--batch-size", value, "batch-size"
        yield command, "--dtype", "float8", "dtype"
        yield command, "--attention", "flash", "attention"
        yield command, "--max-pixels", "0", "max-pixels"
        yield command, "--min-pixels", "-5", "min-pixels"
    yield "scores", "--attention", "flash_attention_2", ""
    yield "scores", "--images-from", "nowhere", "nowhere"
    for value in ("3", "0", "x"):
        yield "scores", "--processes", value, "process"
    for value in ("nan", "inf", "-1", "0", "1e30", "x"):
        yield "finetune", "--learning-rate", value, "learning"
    for value in ("nan", "inf", "-1", "0", "x"):
        yield "finetune", "--epochs", value, "epochs"
    for option in ("accumulation", "turns", "max-length"):
        for value in ("0", "-1", "x"):
            yield "finetune", f"--{option}", value, option
    yield "finetune", "--turns", "0", "turns"
    yield "finetune", "--max-length", "1", "max_length"
    for command in ("plan", "evaluate", "finetune"):
        for value in ("-1", "x", "1.5", str(2**70)):
            yield command, "--seed", value, "seed"
    for value in ("nan", "inf", "-1", "x"):
        yield "evaluate", "--temperature", value, "temperature"
    for value in ("nosuch", "", "pope", "POPE AI2D"):
        yield "evaluate", "--tasks", value, ""
    for option in ("questions", "max-new-tokens"):
        for value in ("0", "-1", "x"):
            yield "evaluate", f"--{option}", value, option
    for option in ("tokens", "turns"):
        for value in ("0", "-1", "x"):
            yield "latency", f"--{option}", value, option
    yield "latency", "--tokens", "1", "tokens"


@kind("values of options")
def options(world):
    needed = dict(
        plan=("--scores", world.scores),
        scores=("--calibration", world.samples),
        evaluate=("--tasks", "POPE", "--data", world.asked, "--max-new-tokens", 2),
        latency=("--tokens", 2, "--turns", 1),
        finetune=("--data", world.samples, "--plan", world.plan),
    )
    for command, option, value, says in option_values():
        out = world.fresh() / "out"
        usual = (*world.of_model, *needed[command], "--out", out)
        yield f"{command} {option} '{value}'", (command, *usual, f"{option}={value}"), says


@kind("commands and what belongs together")
def commands(world):
    out = ("--out", "out")
    for argv, says in (
        ([], "COMMAND"),
        (["nosuch"], "nosuch"),
        (["--nosuch"], ""),
        (["prune"], "--out"),
        (["prune", *world.of_model, "--out", world.fresh() / "o"], "no scores and no calibration"),
        (["plan", *world.of_model, "--out", world.fresh() / "o"], "no scores and no calibration"),
        (["finetune", *world.of_model, *out], "--data"),
        (["scores", *world.of_model, *out], "--calibration"),
        (["evaluate", *world.of_model, "--nosuch"], "--nosuch"),
        (["report", world.pruned], "--out"),
        (["card"], "folder"),
        (["card", world.model], "interlace.json"),
        (["card", world.folder / "nowhere"], "nowhere"),
        (["card", world.plan], "plan.json"),
        (["report", "nosuch", "--out", world.fresh() / "o"], "nosuch"),
        (["report", "../nano", "--out", world.fresh() / "o"], ""),
        (["report", "", "--out", world.fresh() / "o"], ""),
        (["report", world.model, "--out", world.fresh() / "o"], ""),
        (["report", world.pruned, "--before", world.record, *out], "--after"),
        (["push-to-hub", world.folder / "nowhere", "owner/name"], "nowhere"),
        (["push-to-hub", world.pruned, "name"], "owner/name"),
        (["push-to-hub", world.pruned, "a/b/c"], "owner/name"),
        (["push-to-hub", world.pruned, "https://hub/a"], "owner/name"),
        (["push-to-hub", world.pruned, "owner/na me"], "owner/name"),
        (["push-to-hub", world.model, "owner/name"], "model card"),
        (["finetune", *world.training(world.model), "--out", world.fresh() / "o"], "--plan"),
        (["evaluate", *world.of_model, "--data", world.samples, "--tasks", "POPE"], "--tasks"),
        (["evaluate", *world.of_model, "--data", world.folder / "nowhere"], "nowhere"),
        (["evaluate", *world.of_model, "--benchmarks", world.folder / "nowhere"], "nowhere"),
        (["evaluate", *world.of_model, "--data", world.folder / "no.parquet"], "no.parquet"),
        (["prune", *world.of_model, "--plan", world.plan, "--base", "x", *out], "x"),
        (["reproduce", "--profile", "nosuch"], "nosuch"),
        (["reproduce", "--profile", ""], "profile"),
        (["reproduce", "--profile", "../x"], "../x"),
        (["reproduce", "--profile", "smoke", "--only", "figure9"], "figure9"),
        (["reproduce", "--profile", "smoke", "--only", ""], ""),
        (["reproduce", "--profile", "smoke", "--cores", "0"], "cores"),
        (["reproduce", "--profile", "smoke", "--memory", "-1"], "memory"),
        (["reproduce", "--profile", "smoke", "--cluster", "nosuch"], "nosuch"),
        (["plan-run", "--profile", "nosuch"], "nosuch"),
        (["plan-run", "--gpu", "nosuch"], "nosuch"),
        (["plan-run", "--gpus", "0"], "gpus"),
    ):
        yield " ".join(Path(str(a)).name for a in argv[:4]), argv, says


# ------------------------------------------------------------------ names of models and files


@kind("names of models and paths")
def names(world):
    out = world.fresh() / "o"
    for name in (
        *("", ".", "..", "/", "~", "~nobody", "nano", "nano-x", "NANO-L", "nano-l@main"),
        *("a/b/c", "owner/", "/owner", "owner/name@", "owner/na me", "owner//name", "-x/y"),
        *("https://hub/owner/name", "owner/name?x", "\x00", "a\nb", "\x1b[2J", "ü/é", "x" * 300),
        *("file:///etc", "owner/name", "owner/name@main", "tests/modle", "\udcff"),
    ):
        argv = ("scores", f"--model={name}", "--calibration", world.samples, "--out", out)
        yield f"--model {name[:20]!r}", argv, ""
    for option in ("--calibration", "--scores", "--images-from", "--extension"):
        for name in ("", "nowhere", "x" * 300, "\udcff", "https://host/a.parquet"):
            out = world.fresh() / "o"
            more = () if option in ("--calibration", "--scores") else ("--scores", world.scores)
            argv = ("plan", *world.of_model, *more, f"{option}={name}", "--out", out)
            # an empty name is none, and a folder that is not there may hold no image
            yield f"plan {option} {name[:20]!r}", argv, EITHER if not name else ""
    for name in ("", ".", "..", "/", "a/..", "x" * 300):
        out = world.fresh() / name if name and name[0] not in "/." else name
        argv = ("plan", *world.of_model, "--scores", world.scores, f"--out={out}")
        yield f"plan --out {name[:20]!r}", argv, ""


@kind("unusual names and places")
def unusual_places(world):
    for name in ("my model", "модель", "a'b\"c", "a;b$(c)", "[x]*?", "-x", "a@b", "x" * 200):
        folder = world.fresh() / name
        shutil.copytree(world.model, folder)
        argv = ("scores", "--model", folder, "--calibration", world.samples)
        out = world.here / f"{name}.json"
        yield f"model folder {name[:20]}", (*argv, "--out", out), None
        data = shutil.copy(world.samples, world.fresh() / f"{name}.parquet")
        argv = ("scores", *world.of_model, "--calibration", data, "--out", world.here / name)
        yield f"data {name[:20]}", argv, None
    link = world.fresh() / "link"
    link.symlink_to(world.model)
    argv = ("scores", "--calibration", world.samples, "--out", world.here / "o", "--model")
    yield "model folder through a link", (*argv, link), None
    yield "model folder with a slash", (*argv[:-1], "--overwrite", "--model", f"{link}/"), None
    shards = world.fresh() / "data" / "deep"
    shards.mkdir(parents=True)
    for i, r in enumerate(world.rows):
        write(shards / f"{i}.parquet", [r])
    argv = ("scores", *world.of_model, "--calibration", world.here / "data")
    check = same_scores(world, world.here / "o")
    yield "a folder of parquet files", (*argv, "--out", world.here / "o"), None, check
    argv = ("plan", *world.of_model, "--scores", world.scores, "--out")
    yield "--out in a new folder", (*argv, world.fresh() / "a" / "b" / "plan.json"), None


def same_scores(world, file, reference=None):
    "A check that a scores file holds the same similarities as another"

    def check():
        one, two = (
            json.loads(Path(f).read_text())["per_sample"] for f in (reference or world.scores, file)
        )
        for span in one:
            a, b = np.asarray(one[span]), np.asarray(two[span])
            if a.shape != b.shape or not np.allclose(a, b, atol=1e-5):
                return f"other similarities: {a.shape} {b.shape}"
        return None

    return check


# ------------------------------------------------------------------ settings


def wrong_settings():
    "(setting, wrong value) by the types of the settings"
    for name, (of, _) in SETTINGS.items():
        several = isinstance(of, list)
        of = of[0] if several else of
        values = {int: ("x", "1.5", "-1", ""), float: ("x", "nan", "inf", "-1", "")}.get(of)
        values = values or {bool: ("maybe", "2", "")}.get(of)
        values = values or ("",) * (name not in ("domains", "extensions"))
        for value in values:
            yield name, value
        if several and of is not str:
            yield name, "0.5 0.5" if of is float else "1 1"
        if of is str and not several:
            yield name, "no such"
    yield from (("ratio", "0.25"), ("models", "nano-l nano-l"), ("models", "../x"))
    yield from (("ablation", "nosuch"), ("benchmarks", "nosuch"), ("domains", "nosuch"))
    yield from (("extensions", "nosuch.py"), ("extensions", "settings.ini"), ("seeds", "1,2"))
    yield from (("ratios", "0.25,0.5"), ("ratios", "1"), ("ratios", "0.99"), ("questions", "0"))
    yield from (("min_pixels", "100"), ("dense_processes", "3"), ("reasoning_questions", "9999"))


def clone(world, settings):
    "A folder that counts as a clone, with its own settings"
    root = world.fresh()
    (root / "nbs").symlink_to(ROOT / "nbs")
    (root / "interlace").symlink_to(ROOT / "interlace")
    content = settings if isinstance(settings, bytes) else settings.encode()
    (root / "settings.ini").write_bytes(content)
    os.environ["INTERLACE_ROOT"] = str(root)
    return root


@kind("settings of a profile")
def profile_settings(world):
    usual = (ROOT / "settings.ini").read_text()
    accepted = {("questions", "0"): EITHER, ("min_pixels", "100"): EITHER}
    accepted[("reasoning_questions", "9999")] = EITHER
    accepted |= {("extensions", "settings.ini"): "settings.ini", ("models", "../x"): "../x"}
    for name, value in wrong_settings():
        clone(world, f"{usual}\n[wrong]\nextends = smoke\n{name} = {value}\n")
        for command in (("plan-run",), ("reproduce", "--dry-run")):
            if command[0] == "reproduce" and accepted.get((name, value)) == EITHER:
                continue
            says = accepted.get((name, value), name.split("_")[0])
            yield f"{command[0]} {name} = {value}", (*command, "--profile", "wrong"), says


@kind("files of settings")
def settings_files(world):
    usual = (ROOT / "settings.ini").read_text()
    wrong = "\n[wrong]\nextends = smoke\n"
    for name, text, says in (
        ("empty", "", "no profile"),
        ("no section", "a = 1\n", ""),
        ("open bracket", "[wrong\n", ""),
        ("a line without '='", usual + wrong + "nonsense\n", ""),
        ("section twice", usual + "\n[smoke]\n", "smoke"),
        ("setting twice", usual + wrong + "seeds = 1\nseeds = 2\n", "seeds"),
        ("extends itself", usual + "\n[wrong]\nextends = wrong\n", "extends itself"),
        ("extends in a circle", "[wrong]\nextends = b\n[b]\nextends = wrong\n", "extends itself"),
        ("extends nothing", usual + "\n[wrong]\nextends =\n", ""),
        ("extends an unknown one", usual + "\n[wrong]\nextends = nosuch\n", "nosuch"),
        ("a bad name", usual + "\n[a b]\n", "a b"),
        ("a bad name", usual + "\n[../x]\n", "../x"),
        ("a bad name", usual + "\n[a; touch x]\n", "touch"),
        ("an empty name", usual + "\n[]\n", ""),
        ("a default section", "[DEFAULT]\nratio = 1\n" + usual + wrong, "ratio"),
        ("interpolation", usual + wrong + "models = %(x)s\n", ""),
        ("control characters", usual + wrong + "models = a\x1b[2J\n", ""),
        ("a byte order mark", b"\xef\xbb\xbf" + (usual + wrong).encode(), EITHER),
        ("not UTF-8", (usual + wrong).encode() + b"# \xff\xfe\n", ""),
        ("UTF-16", (usual + wrong).encode("utf-16"), ""),
        ("zero bytes", b"\0" * 100, ""),
        ("Windows line ends", (usual + wrong).replace("\n", "\r\n"), None),
    ):
        clone(world, text)
        yield f"reproduce, {name}", ("reproduce", "--profile", "wrong", "--dry-run"), says
        yield f"plan-run, {name}", ("plan-run", "--profile", "wrong"), says
        yield f"profiles, {name}", ("profiles",), EITHER
    root = clone(world, "")
    (root / "settings.ini").unlink()
    yield "profiles, no file", ("profiles",), "settings.ini"
    (root / "settings.ini").mkdir()
    yield "profiles, a folder", ("profiles",), "settings.ini"


@kind("files of training settings")
def training_settings(world):
    def tried(content):
        file = world.file("settings.json", content)
        argv = ("finetune", *world.training(world.pruned), "--settings", file)
        return (*argv, "--out", world.here / "o")

    for text in ("", "{", "[]", "[1]", "3", "null", '"x"', "NaN", "\ufeff{}", "[" * 100_000):
        yield f"--settings {text[:9]!r}", tried(text), "settings.json"
    yield "--settings of bytes", tried(b"\xff\xfe\x00"), "settings.json"
    for name, values in dict(
        learning_rate=(0, -1, "fast", None, True, [1], {}, 1e300),
        batch_size=(0, -1, 1.5, "2", None, True, [2], 10**20),
        parts=(0, 1.5, "2", None),
        accumulation=(0, "1", None, 0.5),
        epochs=(0, -1, "1", None, 1e300),
        warmup_ratio=(-1, 2, "x", None),
        weight_decay=(-1, "x", None),
        max_grad_norm=(0, -1, "x", None),
        turns=(0, -1, "x", None, 2.5),
        max_length=(0, "x", None),
        checkpoint_steps=(0, "x", None, 1.5),
        log_steps=(0, "x", None),
        workers=(-1, "x", 1.5),
        seed=(-1, "x", None, 2**70, 1.5),
        schedule=("nosuch", 3, None, ""),
        optimizer=("adam", 3),
        save_dtype=("bfloat16", "float8", 16),
        bfloat16=("yes", None, 3),
        shuffle=("yes", None),
        gradient_checkpointing=("yes", None, 3),
    ).items():
        for value in values:
            yield f"{name} = {value!r:.12}", tried({name: value}), name
    yield "any other field", tried(dict(note="mine")), None


# ------------------------------------------------------------------ plans and scores


WRONG = (None, True, "x", "", -1, 1.5, 99, [], {}, [None], ["x"], [1.5], [True], [-1], [99], [[1]])


def damaged_texts(good):
    "JSON that is none, or is of something else: (name, content)"
    yield from (("empty", ""), ("half", json.dumps(good)[: len(json.dumps(good)) // 2]))
    yield from (("a list", []), ("a number", "3"), ("null", "null"), ("a text", '"x"'))
    yield from (("an object of nothing", {}), ("another kind", good | dict(kind="other")))
    yield from (("no kind's kind", good | dict(kind=None)), ("bytes", b"\xff\xfe\x00\x01"))
    yield from (("deep", "[" * 100_000), ("a long number", '{"kind": ' + "1" * 5000 + "}"))
    yield from (("a byte order mark", "\ufeff" + json.dumps(good)), ("zero bytes", b"\0" * 64))
    yield "UTF-16", json.dumps(good).encode("utf-16")


@kind("files of plans")
def plans(world):
    good = json.loads(world.plan.read_text())

    def tried(content, command="prune"):
        file = world.file("plan.json", content)
        if command == "finetune":
            argv = world.training(world.model)
        else:
            argv = world.of_model + (("--tokens", 2, "--turns", 1) if command == "latency" else ())
        return (command, *argv, "--plan", file, "--out", world.here / "o")

    for command in ("prune", "finetune", "latency"):
        for name, content in damaged_texts(good):
            says = EITHER if name == "another kind of" else "plan.json"
            yield f"{command}, {name}", tried(content, command), says
    for name in ("drop", "tune", "anchor", "n_layers", "ratio", "strategy"):
        less = {k: v for k, v in good.items() if k != name}
        yield f"no {name}", tried(less), "plan.json"
        for value in WRONG:
            fine = name in ("drop", "tune", "anchor") and value in ([], {}, "")
            fine = fine or name == "strategy" and isinstance(value, str)
            yield (
                f"{name} = {value!r}",
                tried(good | {name: value}),
                EITHER if fine else "plan",
            )
    every = list(range(LAYERS))
    for name, change in (
        ("all dropped", dict(drop=every, tune=[], anchor=[])),
        ("two roles", dict(drop=[2], tune=[2], anchor=[])),
        ("twice", dict(drop=[2, 2], tune=[], anchor=[])),
        ("another depth", dict(n_layers=LAYERS + 1)),
        ("fewer layers", dict(n_layers=LAYERS - 1)),
        ("ratio 1", dict(ratio=1)),
        ("ratio NaN", dict(ratio=float("nan"))),
    ):
        yield name, tried(good | change), "plan"
    yield (
        "a scores file",
        ("prune", *world.of_model, "--plan", world.scores, "--out", "o"),
        "scores",
    )
    yield "a further field", tried(good | dict(note="mine")), None
    argv = ("finetune", *world.training(world.pruned), "--plan")
    other = world.file("plan.json", good | dict(drop=[1], tune=[2], anchor=[3]))
    yield "another folder's", (*argv, other, "--out", world.here / "o"), "not the plan"


@kind("files of scores")
def scores(world):
    good = json.loads(world.scores.read_text())

    def tried(content, command="plan"):
        file = world.file("scores.json", content)
        return (command, *world.of_model, "--scores", file, "--out", world.here / "o")

    def changed(span, change):
        new = copy.deepcopy(good)
        new["per_sample"][span] = change(new["per_sample"][span])
        return new

    for command in ("plan", "prune"):
        for name, content in damaged_texts(good):
            yield f"{command}, {name}", tried(content, command), "scores.json"
    for name in ("n_layers", "per_sample", "last", "about"):
        less = {k: v for k, v in good.items() if k != name}
        yield f"no {name}", tried(less), "scores.json"
        for value in WRONG:
            says = EITHER if name in ("about", "last") else "scores"
            yield f"{name} = {value!r}", tried(good | {name: value}), says
    for span in ("1", "2", "3"):
        for name, change in (
            ("no values", lambda v: []),
            ("a window less", lambda v: [r[:-1] for r in v]),
            ("a window more", lambda v: [[*r, 0.5] for r in v]),
            ("a sample less", lambda v: v[:-1]),
            ("ragged", lambda v: [v[0][:-1], *v[1:]]),
            ("text", lambda v: [["x", *r[1:]] for r in v]),
            ("null", lambda v: [[None, *r[1:]] for r in v]),
            ("true", lambda v: [[True, *r[1:]] for r in v]),
            ("NaN", lambda v: [[float("nan"), *r[1:]] for r in v]),
            ("infinite", lambda v: [[float("inf"), *r[1:]] for r in v]),
            ("above 1", lambda v: [[1.5, *r[1:]] for r in v]),
            ("below -1", lambda v: [[-1.5, *r[1:]] for r in v]),
            ("one deeper", lambda v: [v]),
            ("flat", lambda v: v[0]),
            ("a number", lambda v: 0.5),
        ):
            says = EITHER if name == "true" else "scores"
            yield f"span {span}, {name}", tried(changed(span, change)), says
    yield "a plan file", tried(json.loads(world.plan.read_text())), "plan"
    deeper = dict(good, n_layers=LAYERS + 1)
    yield "another depth", tried(deeper), "scores"


# ------------------------------------------------------------------ records


def mutations(record, depth=2):
    "(path, damaged copy) for each entry of a record down to a depth"
    for key in record if isinstance(record, dict) else ():
        for value in ("gone", None, "x", []):
            new = copy.copy(record)
            if value == "gone":
                del new[key]
            elif new[key] == value:
                continue
            else:
                new[key] = value
            yield f"{key} {value!r}", new
        if depth > 1:
            for path, inner in mutations(record[key], depth - 1):
                yield f"{key}.{path}", record | {key: inner}


@kind("records in a model's folder")
def folder_records(world):
    for file in ("interlace.json", "training.json", "evaluation.json"):
        good = json.loads((world.tuned / file).read_text())
        for name, content in damaged_texts(good):
            folder = world.copy(world.tuned)
            as_text = content if isinstance(content, (str, bytes)) else json.dumps(content)
            as_bytes = as_text if isinstance(as_text, bytes) else as_text.encode()
            (folder / file).write_bytes(as_bytes)
            yield f"card, {file}: {name}", ("card", folder), EITHER
        for path, content in mutations(good, 2 if file == "interlace.json" else 1):
            folder = world.copy(world.tuned)
            (folder / file).write_text(json.dumps(content))
            yield f"card, {file}: {path}", ("card", folder), EITHER
            argv = ("report", folder, "--out", world.here / "o")
            yield f"report, {file}: {path}", argv, EITHER
    good = json.loads((world.pruned / "interlace.json").read_text())
    for path, content in mutations(good, 1):
        folder = world.copy(world.pruned)
        (folder / "interlace.json").write_text(json.dumps(content))
        argv = ("finetune", *world.training(folder), "--out", world.here / "o")
        yield f"finetune, interlace.json: {path}", argv, EITHER


@kind("records of evaluations")
def evaluations(world):
    good = json.loads(world.record.read_text())
    for name, content in damaged_texts(good):
        file = world.file("record.json", content)
        folder = world.here / "tuned"
        shutil.copytree(world.tuned, folder)
        says = EITHER if "kind" in name else "record"
        yield f"card, {name}", ("card", folder, "--evaluation", file), EITHER
        argv = ("report", folder, "--before", file, "--after", file, "--out", world.here / "o")
        yield f"report, {name}", argv, EITHER if says == EITHER else ""
    for path, content in mutations(good):
        if path.startswith("provenance."):
            continue
        file = world.file("record.json", content)
        folder = world.here / "tuned"
        shutil.copytree(world.tuned, folder)
        yield f"card, {path}", ("card", folder, "--evaluation", file), EITHER
        argv = ("report", folder, "--before", world.record, "--after", file)
        yield f"report, {path}", (*argv, "--out", world.here / "o"), EITHER
    other = world.file("record.json", good | dict(weights="of another"))
    shutil.copytree(world.pruned, world.here / "pruned")
    argv = ("card", world.here / "pruned", "--evaluation")
    yield "of another model", (*argv, other), "another model"
    yield "a plan", (*argv, world.plan), "not of an evaluation"
    yield "no such file", (*argv, world.here / "no.json"), "no.json"


# ------------------------------------------------------------------ model folders


def json_changes():
    "(file, name, change) of a model folder's JSON files"
    config = "config.json"
    for value in (0, -1, LAYERS + 1, LAYERS - 1, "8", None, 1.5):
        yield config, f"layers {value}", dict(text_config=dict(num_hidden_layers=value))
    for key, values in dict(
        model_type=("nosuch", None, 3, "", "llama"),
        architectures=(["Nosuch"], [], None),
        text_config=(None, {}, "x"),
        vision_config=(None, {}, "x"),
        dtype=("float99", 3),
        quantization_config=(dict(quant_method="gptq", bits=4), dict(quant_method="nosuch"), "x"),
        auto_map=(dict(AutoConfig="own.Own"),),
        image_token_id=(None, -1, 10**6),
    ).items():
        for value in values:
            yield config, f"{key} {value!r:.20}", {key: value}
    text = dict(hidden_size=(0, 7, "x"), num_attention_heads=(0, 3, None), vocab_size=(0, 10, "x"))
    text |= dict(head_dim=(0, -1), rms_norm_eps=("x", None), rope_parameters=("x", {}))
    for key, values in text.items():
        for value in values:
            yield config, f"{key} {value!r}", dict(text_config={key: value})


def damage_file(path, how):
    "Damage one file"
    whole = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(
            {"empty": b"", "half": whole[: len(whole) // 2], "noise": b"\x80\xff" * 200}[how]
        )


def command_for(world, folder, turn):
    "One of the commands that load a model, in turns"
    commands = (
        ("scores", "--model", folder, "--calibration", world.samples, "--out", world.here / "o"),
        ("evaluate", *world.asking(folder), "--out", world.here / "o"),
        ("latency", "--model", folder, "--tokens", 2, "--turns", 1, "--out", world.here / "o"),
        ("prune", "--model", folder, "--plan", world.plan, "--out", world.here / "o"),
        ("finetune", *world.training(folder), "--plan", world.plan, "--out", world.here / "o"),
    )
    return commands[turn % len(commands)]


@kind("files of a model folder")
def model_files(world):
    turn = 0
    optional = ("generation_config.json", "training.json", "README.md", "tokenizer_config.json")
    for name in sorted(p.name for p in world.model.iterdir()):
        for how in ("gone", "empty", "half", "noise", "a folder"):
            folder, turn = world.copy(world.model), turn + 1
            damage_file(folder / name, how)
            # half of a template may be a template
            may_do = name in optional or (name, how) == ("chat_template.jinja", "half")
            says = EITHER if may_do else "model"
            yield f"{name} {how}", command_for(world, folder, turn), says
    for file, name, change in json_changes():
        folder, turn = world.copy(world.model), turn + 1
        config = json.loads((folder / file).read_text())
        for key, value in change.items():
            inner = isinstance(value, dict) and isinstance(config.get(key), dict) and value
            config[key] = config[key] | value if inner else value
        (folder / file).write_text(json.dumps(config))
        yield f"{file}: {name}", command_for(world, folder, turn), EITHER


def change_weights(folder, change):
    "Change the weights of a folder by name"
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    weights = {k: v.contiguous() for k, v in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@kind("weights, templates and other parts of a model")
def model_parts(world):
    name, turn = "model.language_model.layers.3.mlp.up_proj.weight", 0
    changes = dict(
        missing=lambda w: w.pop(name),
        surplus=lambda w: w.update({name.replace(".3.", ".8."): w[name].clone()}),
        transposed=lambda w: w.update({name: w[name].T}),
        shorter=lambda w: w.update({name: w[name][:-1]}),
        NaN=lambda w: w[name].view(-1)[:1].fill_(float("nan")),
        infinite=lambda w: w[name].view(-1)[:1].fill_(float("inf")),
        whole=lambda w: w.update({name: w[name].to(torch.int8)}),
        eight_bits=lambda w: w.update({name: w[name].to(torch.float8_e4m3fn)}),
        none=lambda w: w.clear(),
    )
    for what, change in changes.items():
        for _ in range(2):
            folder, turn = world.copy(world.model), turn + 1
            change_weights(folder, change)
            says = EITHER if what == "eight_bits" else "model"
            yield f"weights {what}", command_for(world, folder, turn), says
    index = "model.safetensors.index.json"
    for shard in ("../model/model.safetensors", "/etc/passwd", "nosuch.safetensors", 3, ""):
        folder, turn = world.copy(world.model), turn + 1
        (folder / index).write_text(json.dumps(dict(weight_map={"lm_head.weight": shard})))
        # of one file there is no shard, so a harmless index is not used
        says = EITHER if shard in ("nosuch.safetensors", "") else "model"
        yield f"index names {shard!r}", command_for(world, folder, turn), says
    templates = ("", "{% for %}", "{{ nosuch.field }}", "{{ raise_exception('no') }}", "{{ 1/0 }}")
    templates += ("same", "{% for m in messages[::-1] %}{{ m.role }}{% endfor %}", "\udcff")
    for template in templates:
        for k in (0, 1, 4):
            folder = world.copy(world.model)
            content = template.encode("utf-8", "surrogateescape")
            (folder / "chat_template.jinja").write_bytes(content)
            yield f"template {template[:20]!r}", command_for(world, folder, k), ""
    for what, files in (
        ("pickle only", {"pytorch_model.bin": b"\x80\x04."}),
        ("adapter", {"adapter_config.json": b'{"base_model_name_or_path": "x"}'}),
        ("nothing", {}),
        ("a text", {"README.md": b"# x"}),
    ):
        folder = world.fresh() / "model"
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        yield f"a folder of {what}", command_for(world, folder, 0), "model"
    file = world.file("model", "x")
    yield "a file, not a folder", command_for(world, file, 0), "model"


# ------------------------------------------------------------------ data


def wrong_rows():
    "(name, row, whether it can be read) for one row among good ones"
    yield "no images", row(9, images=None), True
    yield "empty images", row(9, images=[]), True
    yield "texts null", row(9, texts=None), False
    yield "texts empty", row(9, texts=[]), False
    yield "turn null", row(9, texts=[None]), False
    for who in ("user", "assistant"):
        for value in (None, "", " \n"):
            yield f"{who} {value!r}", row(9, texts=[TURN | {who: value}]), False
    yield "second turn empty", row(9, texts=[TURN, TURN | dict(assistant="")]), False
    yield "special token", row(9, texts=[TURN | dict(user="a <|image_pad|> b")]), False
    yield "<image> in the text", row(9, texts=[TURN | dict(user="<image>\nWhat?")]), True
    yield "zero character", row(9, texts=[TURN | dict(user="a\0b")]), True
    yield "emoji and right to left", row(9, texts=[TURN | dict(user="🙂 שלום")]), True
    yield "a long text", row(9, texts=[TURN | dict(user="word " * 3000)]), True
    yield "many turns", row(9, texts=[TURN] * 200), True
    yield "four images", row(9, images=[RED] * 4), False
    yield "id null", row(9) | dict(id=None), True


@kind("rows of conversations")
def rows(world):
    for name, bad, readable in wrong_rows():
        for command in READERS:
            data = write(world.fresh() / "data.parquet", [*world.rows, bad])
            check = counted(world.here / "o", 4 + readable) if command == "scores" else None
            yield f"{command}, {name}", reading(world, command, data), None, check
        data = write(world.fresh() / "data.parquet", [bad])
        yield f"alone, {name}", reading(world, "scores", data), None if readable else ""


def counted(file, n):
    "A check that a scores file is about `n` samples"

    def check():
        found = len(json.loads(file.read_text())["per_sample"]["1"])
        return None if found == n else f"{found} samples were scored, not {n}"

    return check


def other_schemas():
    "(name, columns with their types, values of a row, whether it can be read)"
    text, number, pic = pa.string(), pa.int64(), dict(bytes=png(RED), path=None)
    message = pa.list_(pa.struct([("role", text), ("content", text)]))
    said = pa.list_(pa.struct([("from", text), ("value", text)]))
    numbers = pa.list_(pa.struct([("user", number), ("assistant", number)]))
    chat = [dict(role="user", content="hi"), dict(role="assistant", content="x")]
    talk = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "x"}]
    images, turns, turn = pa.list_(IMAGE_TYPE), pa.list_(TURN_TYPE), [TURN]
    large = dict(images=pa.large_list(IMAGE_TYPE), texts=pa.large_list(TURN_TYPE))
    raw = dict(images=pa.list_(pa.binary()), texts=turns)
    yield "messages", dict(images=images, messages=message), ([pic], chat), True
    yield "conversations", dict(images=images, conversations=said), ([pic], talk), True
    yield "messages in texts", dict(images=images, texts=message), ([pic], chat), True
    yield "two questions", dict(texts=message), ([chat[0], chat[0]],), False
    yield "an answer first", dict(texts=message), (chat[::-1],), False
    yield "a strange role", dict(texts=message), ([chat[0] | dict(role="x")],), False
    yield "one image", dict(image=IMAGE_TYPE, texts=turns), (pic, turn), True
    yield "images as bytes", raw, ([png(RED)], turn), True
    yield "images as text", dict(images=pa.list_(text), texts=turns), (["a.png"], turn), False
    yield "images as numbers", dict(images=pa.list_(number), texts=turns), ([3], turn), False
    yield "large lists", large, ([pic], turn), True
    yield "texts as text", dict(images=images, texts=text), ([pic], "hi"), False
    yield "texts as numbers", dict(images=images, texts=pa.list_(number)), ([pic], [1]), False
    yield "turns of numbers", dict(texts=numbers), ([dict(user=1, assistant=2)],), False
    yield "no conversation", dict(images=images), ([pic],), False
    yield "other columns", dict(a=text, b=text), ("x", "y"), False
    yield "numbers only", dict(x=number), (1,), False


def reading(world, command, data):
    "One of the commands that read conversations"
    out = ("--out", world.here / "o")
    if command == "finetune":
        return (command, *world.training(world.pruned, data), *out)
    if command == "evaluate":
        return (command, *world.of_model, "--data", data, "--max-new-tokens", 2, *out)
    return (command, *world.of_model, "--calibration", data, *out)


READERS = ("scores", "finetune", "evaluate")


@kind("schemas of data")
def schemas(world):
    for name, fields, values, readable in other_schemas():
        for command in READERS:
            row_of = dict(zip(fields, values, strict=True))
            schema = pa.schema(list(fields.items()))
            data = write(world.fresh() / "data.parquet", [row_of] * 3, schema)
            says = None if readable else "data.parquet"
            yield f"{command}, {name}", reading(world, command, data), says


@kind("damaged parquet files")
def parquet_files(world):
    whole = world.samples.read_bytes()
    for name, content in (
        ("empty file", b""),
        ("half a file", whole[: len(whole) // 2]),
        ("without its end", whole[:-8]),
        ("noise", os.urandom(500)),
        ("text", b"id,images,texts\n"),
        ("JSON", b"[{}]"),
        ("other magic", b"PAR1" + whole[4:100] + b"PAR1"),
        ("damaged inside", whole[:200] + b"\xff" * 200 + whole[400:]),
    ):
        for command in READERS:
            data = world.file("data.parquet", content)
            yield f"{command}, {name}", reading(world, command, data), "data.parquet"
    for name, table in (("no row", []), ("one row", [row()])):
        for command in READERS:
            data = write(world.fresh() / "data.parquet", table)
            says = None if table else "data.parquet"
            yield f"{command}, {name}", reading(world, command, data), says
    folder = world.fresh() / "empty"
    folder.mkdir()
    yield "scores, an empty folder", reading(world, "scores", folder), "no parquet file"
    yield "finetune, an empty folder", reading(world, "finetune", folder), "no parquet file"


# ------------------------------------------------------------------ images


def bad_images():
    "(name, image of a row) that cannot be decoded or has no meaning"
    good, wide = png(RED), Image.new("RGB", (900, 3), "red")
    yield from (("empty", b""), ("half", good[:40]), ("noise", b"\xff" * 200), ("text", b"hello"))
    yield from (("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), ("PDF", b"%PDF-1.4\n"))
    yield from (("cut JPEG", png(RED, "JPEG")[:300]), ("null", None), ("a wide line", png(wide)))
    yield "a bomb", png(Image.new("1", (30_000, 30_000)))
    yield "floats", png(Image.fromarray(np.full((40, 40), 0.5, np.float32)), "TIFF")
    yield "32 bits", png(Image.fromarray(np.full((40, 40), 10**6, np.int32)), "TIFF")
    for path in ("a.png", "/etc/hostname", "http://host/a.png", "../a.png", "a\0.png", ""):
        yield f"path {path!r}", dict(bytes=None, path=path)


@kind("images that cannot be seen")
def images(world):
    for name, image in bad_images():
        for command in READERS:
            data = write(world.fresh() / "data.parquet", [*world.rows, row(9, images=[image])])
            # the processor refuses a line of pixels, so that row is left out
            says = EITHER if name in ("a wide line", "a bomb") else "r9"
            yield f"{command}, {name}", reading(world, command, data), says


def same_images():
    "(name, image, the image that a viewer shows) for formats that are read"
    half = Image.new("RGB", (48, 40), "blue")
    half.paste(RED, (24, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "EXIF turn", png(half, exif=exif), half.transpose(Image.Transpose.ROTATE_270)
    ink = Image.new("RGBA", (48, 40), (0, 0, 0, 0))
    ink.paste((255, 0, 0, 255), (10, 10, 30, 30))
    on_white = Image.new("RGB", (48, 40), "white")
    on_white.paste((255, 0, 0), (10, 10, 30, 30))
    yield "transparency", png(ink), on_white
    yield "palette", png(half.quantize(8), "GIF"), half.quantize(8).convert("RGB")
    grey = np.linspace(0, 255, 48 * 40).reshape(40, 48).astype(np.uint8)
    yield "16 bits", png(Image.fromarray(grey.astype(np.uint16) * 257)), Image.fromarray(grey)
    yield "grey", png(Image.fromarray(grey)), Image.fromarray(grey).convert("RGB")
    yield "one bit", png(Image.fromarray(grey).convert("1")), Image.fromarray(grey).convert("1")
    yield "BMP", png(half, "BMP"), half
    yield "TIFF", png(half, "TIFF"), half
    yield "WebP", png(half, "WEBP", lossless=True), half
    yield "CMYK", png(half.convert("CMYK"), "TIFF"), half.convert("CMYK").convert("RGB")
    yield "one pixel", png(Image.new("RGB", (1, 1), "red")), Image.new("RGB", (1, 1), "red")


@kind("images in unusual formats")
def unusual_images(world):
    for name, stored, shown in same_images():
        one, two = (write(world.fresh() / "a.parquet", [row(0, images=[stored])]), None)
        two = write(world.here / "b.parquet", [row(0, images=[shown.convert("RGB")])])
        first, second = world.here / "a.json", world.here / "b.json"
        world.run("scores", *world.of_model, "--calibration", two, "--out", second)
        argv = ("scores", *world.of_model, "--calibration", one, "--out", first)
        yield name, argv, None, same_scores(world, first, second)


# ------------------------------------------------------------------ outputs and extensions


@kind("outputs that are in the way")
def outputs(world):
    folder = world.fresh()
    for name in ("models/mine", "other"):
        shutil.copytree(world.model, folder / name)
    shutil.copy(world.samples, folder / "data.parquet")
    shutil.copy(world.plan, folder / "plan.json")
    (folder / "notes.txt").write_text("precious")
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("precious")
    (folder / "link").symlink_to(folder / "models" / "mine")
    (folder / "elsewhere").symlink_to(folder / "other")
    (folder / "nowhere").symlink_to(folder / "gone")
    (folder / "linked.json").symlink_to(folder / "plan.json")
    inputs = dict(
        prune=("--plan", folder / "plan.json"),
        finetune=("--data", folder / "data.parquet", "--plan", folder / "plan.json"),
        scores=("--calibration", folder / "data.parquet"),
        plan=("--calibration", folder / "data.parquet"),
        evaluate=("--tasks", "POPE", "--data", world.asked),
        latency=("--plan", folder / "plan.json"),
    )
    places = [
        "models/mine",
        "models",
        "models/mine/new",
        "link",
        "link/new",
        "elsewhere",
        "nowhere",
    ]
    places += [
        "plan.json",
        "data.parquet",
        "linked.json",
        "notes.txt",
        "notes.txt/new",
        "full",
        ".",
    ]
    for command, options in inputs.items():
        for place in places:
            for more in ((), ("--overwrite",)):
                argv = (command, "--model", folder / "models" / "mine", *options)
                if command == "plan" and place == "plan.json" and more:
                    continue  # what --overwrite is for
                argv += ("--out", folder / place, *more)
                yield f"{command} --out {place} {' '.join(more)}", argv, ""
    for place in ("full", "notes.txt", "link", "nowhere", world.pruned / "x.html"):
        argv = ("report", world.pruned, "--out", folder / place, "--overwrite")
        yield f"report --out {place}", argv, ""


BROKEN = {
    "no Python": "def (",
    "an import of nothing": "import nosuch_module_at_all",
    "a name that is not there": "nosuch",
    "an error": "raise RuntimeError('mine')",
    "an exit": "import sys; sys.exit(3)",
    "bytes": b"\xff\xfe\x00",
    "a zero character": "x = '\0'",
    "a recursion": "def f(): f()\nf()",
    "a bad name": "import interlace as il\nil.add_strategy('a b', lambda *a: [])",
    "a taken name": "import interlace as il\nil.add_strategy('random', lambda *a: [])",
    "no function": "import interlace as il\nil.add_strategy('mine', 3)",
    "too many arguments": "import interlace as il\nil.add_strategy('a', 'b', 'c', 'd', 'e')",
    "a bad benchmark": "import interlace as il\nil.add_benchmark('mine', 3)",
}
STRATEGIES = {
    "raises": "raise ValueError('mine')",
    "returns None": "return None",
    "returns a text": "return 'x'",
    "returns too few": "return []",
    "returns a layer that is not there": "return [99] * n",
    "returns a layer twice": "return [1] * n",
    "returns fractions": "return [1.5] * n",
    "divides by zero": "return 1 / 0",
}


@kind("extensions with errors")
def extensions(world):
    usual = ("plan", *world.of_model, "--scores", world.scores)
    for name, code in BROKEN.items():
        file = world.file("mine.py", code)
        argv = (*usual, "--extension", file, "--strategy", "mine", "--out", world.here / "o")
        yield name, argv, "mine"
    for k, (name, body) in enumerate(STRATEGIES.items()):
        lines = f"import interlace as il\ndef s(*a, n=2, **k):\n    {body}\n"
        file = world.file("mine.py", f"{lines}il.add_strategy('mine{k}', s)\n")
        argv = (*usual, "--extension", file, "--strategy", f"mine{k}", "--out", world.here / "o")
        yield f"a strategy that {name}", argv, f"mine{k}"
    for name, make in (
        ("a folder without __init__.py", lambda p: p.mkdir()),
        ("a text file", lambda p: p.write_text("x")),
    ):
        make(world.fresh() / "mine")
        argv = (*usual, "--extension", world.here / "mine", "--out", world.here / "o")
        yield name, argv, "mine"


# ------------------------------------------------------------------ the table


def tried(world, title):
    "The outcomes of all probes of a kind"
    outcomes = Counter()
    root = os.environ.get("INTERLACE_ROOT")
    for name, argv, says, *check in KINDS[title](world):
        outcome, about = judge(world, argv, says, *check)
        outcomes[outcome] += 1
        if outcome in ("traceback", "wrong"):
            print(f"{outcome}: {title}: {name}: {about}", file=sys.stderr, flush=True)
    os.environ.pop("INTERLACE_ROOT", None)
    if root:
        os.environ["INTERLACE_ROOT"] = root
    return outcomes


def show_table(results):
    "The outcomes as a Markdown table"
    columns = dict(line="one clear line", right="right", traceback="traceback", wrong="wrong")
    print("| kind of input | tried | " + " | ".join(columns.values()) + " |")
    print("| --- |" + " --- |" * (1 + len(columns)))
    total = Counter()
    for title, outcomes in [*results.items(), ("all", total)]:
        counts = " | ".join(str(outcomes[c]) for c in columns)
        print(f"| {title} | {sum(outcomes.values())} | {counts} |")
        if title != "all":
            total += outcomes


def chosen_kinds(words):
    "The kinds whose titles contain one of the words; all of them without any"
    found = [t for t in KINDS if not words or any(w in t for w in words)]
    return found or sys.exit(f"no such kind; there are: {'; '.join(KINDS)}")


def run(words):
    "Try the chosen kinds; the exit status is 1 if anything went wrong"
    torch.set_num_threads(1)
    results, began = defaultdict(Counter), time.time()
    with tempfile.TemporaryDirectory(prefix="probes-") as d:
        world = World(Path(d))
        for title in chosen_kinds(words):
            results[title] = tried(world, title)
            print(f"{title}: {time.time() - began:.0f} s", file=sys.stderr, flush=True)
    show_table(results)
    return int(any(o["traceback"] or o["wrong"] for o in results.values()))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))

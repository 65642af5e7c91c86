"""Tests of the twelve real benchmarks on stand-ins in their schema.

One model knows the answers, one errs, and one babbles. The tests compare lmms-eval's own aggregate
with ours, and check that there is no network access, that nothing is written, and bad input.
"""

import base64
import hashlib
import json
import re
import shutil
import socket
from types import SimpleNamespace

import pytest
import torch
from PIL import ImageFile

from interlace.core.errors import BadInput
from interlace.data.conversations import open_image
from interlace.evaluation.benchmarks import (
    REAL,
    _config,
    prepare_benchmarks,
    prepared_benchmarks,
    real_exams,
    reasoning_request,
)
from interlace.evaluation.harness import evaluate
from interlace.evaluation.metrics import question_scores
from interlace.evaluation.mmbench import write_mmbench
from interlace.evaluation.uncertainty import figures
from interlace.testing.benchmarks import write_benchmarks_like

JUDGED = "MIABench"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    to = tmp_path_factory.mktemp("like")
    write_benchmarks_like(to, questions=3)
    return to


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    "Run each test without network and judge, in an empty folder that must stay empty"

    def refuse(*a, **k):
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for key in ("OPENAI_API_KEY", "AZURE_API_KEY", "API_TYPE"):
        monkeypatch.delenv(key, raising=False)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    yield
    assert not list(here.iterdir())


def rows_of(exam):
    "Yield the questions of a task: text, pixels and row, without the tokens of a model"
    task = exam.task()
    for doc in task.test_docs():
        messages = task.doc_to_messages(doc)
        parts = messages[0]["content"]
        yield (
            parts[-1]["text"],
            [open_image(p["url"]) for p in parts[:-1]],
            doc,
            task.doc_to_target(doc),
        )


RIGHT = {
    "TextVQA": lambda doc, target: doc["answers"][0],
    "OCRBench": lambda doc, target: f"It says {target[0]}",
    JUDGED: lambda doc, target: "as asked",
}
WRONG = dict(
    POPE=lambda t: dict(yes="no", no="yes")[t],
    **{
        n: lambda t: "D" if t == "A" else "A"
        for n in ("AI2D", "MMBench", "HRBench4K", "HRBench8K", "V-Star", "ScienceQA")
    },
)


def right(exam, doc, target):
    return RIGHT.get(exam.name, lambda doc, target: target)(doc, target)


def wrong(exam, doc, target):
    return WRONG.get(exam.name, lambda t: "something else")(target)


def babble(exam, doc, target):
    return "hm" if exam.name != "OCRBench" else ""


class Letters:
    "A tokenizer with one token per byte"

    pad_token_id = 0

    def __init__(self, batch_decode):
        self.batch_decode = batch_decode

    def __call__(self, text, **_):
        return dict(input_ids=list(text.encode()))


class Oracle:
    "A processor and model in one that knows the response to each text and image"

    training, device = False, "cpu"

    def __init__(self, exams, say, before=""):
        self.tokenizer, self.asked, self.how = Letters(self.batch_decode), [], []
        self.known = {
            self.key(text, pictures): before + say(e, doc, target)
            for e in exams
            for text, pictures, doc, target in rows_of(e)
        }

    def key(self, text, pictures):
        return text, *(hashlib.sha256(p.tobytes()).digest() for p in pictures)

    def apply_chat_template(self, messages, **_):
        return "".join(c.get("text", "") for m in messages for c in m["content"])

    def __call__(self, text, images=None, **_):
        first = len(self.asked)
        self.asked += [self.key(t, p) for t, p in zip(text, images, strict=True)]
        return type("Batch", (dict,), dict(to=lambda self, device: self))(
            input_ids=torch.arange(first, len(self.asked))[:, None]
        )

    def generate(self, input_ids, **how):
        self.how.append(how)
        return torch.cat([input_ids, input_ids], 1)

    def batch_decode(self, ids, **_):
        return [self.known[self.asked[i]] for i in ids[:, 0]]

    def eval(self):
        pass

    def train(self, mode):
        pass


def record(exams, say, before="", left_out=None, **kw):
    oracle = Oracle(exams, say, before)
    return (
        evaluate(oracle, oracle, exams, batch_size=8, progress=False, left_out=left_out, **kw),
        oracle,
    )


def test_the_table_says_what_lmms_eval_says():
    for name, real in REAL.items():
        c = _config(name)
        assert (c["task"], c["dataset_path"], c.get("dataset_name"), c["test_split"]) == (
            real.task,
            real.dataset,
            real.config,
            real.split,
        )
        assert real.metric in [m["metric"] for m in c["metric_list"]]


@pytest.mark.parametrize("cot", [False, True])
def test_right_wrong_and_unreadable_by_the_benchmarks_own_metrics(folder, cot):
    exams, left_out = real_exams(source=folder, cot=cot)
    assert list(left_out) == [JUDGED] and [e.name for e in exams] == [
        n for n in REAL if n != JUDGED
    ]
    before = "I look at it. **Answer:** " if cot else ""
    for say, want in ((right, 100), (wrong, 0), (babble, 0)):
        r, oracle = record(exams, say, before, left_out)
        for name, b in r["benchmarks"].items():
            assert b["score"] == want and b["harness"] == pytest.approx(want), (name, say)
            assert (
                b["n"] == len(question_scores(r["answers"][name]))
                and b["rows"] == len(r["answers"][name])
                and b["dataset"] == REAL[name].dataset
            )
        assert (
            r["average"]["score"] == want
            and JUDGED not in r["benchmarks"]
            and "OPENAI_API_KEY" in r["left_out"][JUDGED]
            and r["cot"] == cot
        )
        assert json.dumps(json.loads(json.dumps(r))) == json.dumps(r)
        if cot:
            assert all(
                a["said"] == (before + a["answer"]).strip()
                for n, rows in r["answers"].items()
                for a in rows
            )
        assert {h["max_new_tokens"] for h in oracle.how} == (
            {1024} if cot else {16, 32, 128, 1024}
        )  # the tasks' own limits
    for e in exams:
        texts = [t for t, *_ in rows_of(e)]
        asks = [bool(re.search("directly|Answer the question", t)) for t in texts]
        assert all(t.endswith("\n" + reasoning_request(e.name)) for t in texts) == cot and not (
            cot and any(asks)
        ), e.name
    pope = r["benchmarks"]["POPE"]
    assert (
        pope["accuracy"] == 0
        and pope["yes_ratio"] == 0
        and pope["chance"] >= 50
        and r["benchmarks"]["ChartQA"]["chance"] is None
    )


def test_no_answer_after_the_reasoning_is_wrong(folder):
    exams, _ = real_exams(source=folder, cot=True, limit=2)
    r, _ = record(exams, lambda *_: "", "I look and look")
    assert r["average"]["score"] == 0 and all(
        a["answer"] == "" for rows in r["answers"].values() for a in rows
    )


def test_some_right_ours_is_lmms_evals_own_aggregate(folder):
    exams, _ = real_exams(source=folder)

    def some(exam, doc, target):
        return (
            right
            if int(
                hashlib.md5(
                    json.dumps(
                        [
                            exam.name,
                            doc.get("index"),
                            doc.get("text"),
                            str(target),
                            str(doc.get("question")),
                        ]
                    ).encode()
                ).hexdigest(),
                16,
            )
            % 3
            else wrong
        )(exam, doc, target)

    r, _ = record(exams, some)
    for name, b in r["benchmarks"].items():
        assert b["score"] == pytest.approx(b["harness"]), name
    assert 0 < r["average"]["score"] < 100 and 0 < r["benchmarks"]["HRBench4K"]["score"] < 100
    again, _ = record(real_exams(source=folder)[0], some, max_new_tokens=7)
    assert all(
        json.dumps(again[k]) == json.dumps(r[k]) for k in ("benchmarks", "answers", "average")
    )
    assert figures([r], n=20)["average"][0] == pytest.approx(
        r["average"]["score"]
    )  # intervals read the same questions
    for a in r["answers"]["MMBench"]:
        assert a["reference"] in "ABCD"


# each question counts once
def test_rotations_all_or_the_share_of_right_ones(folder):
    exams, _ = real_exams(["MMBench", "HRBench8K"], source=folder)
    r, _ = record(exams, lambda exam, doc, target: "A")
    b = r["benchmarks"]
    assert b["MMBench"]["score"] == b["MMBench"]["chance"] == 0 and b["HRBench8K"]["score"] == 25
    assert b["MMBench"]["n"] == 5 and b["HRBench8K"]["n"] == 3 and b["HRBench8K"]["stderr"] == 0
    mostly, _ = record(exams, lambda exam, doc, target: target if target != "C" else "B")
    assert (
        mostly["benchmarks"]["MMBench"]["score"] == 0
        and mostly["benchmarks"]["HRBench8K"]["score"] == 75
    )


def test_yes_and_no_only(folder):
    exams, _ = real_exams(["POPE"], source=folder)
    r, _ = record(exams, lambda exam, doc, target: target + ", I think")
    assert r["benchmarks"]["POPE"]["score"] == r["benchmarks"]["POPE"]["accuracy"] == 0
    r, _ = record(exams, lambda exam, doc, target: "Yes")
    b = r["benchmarks"]["POPE"]
    assert b["yes_ratio"] == b["recall"] == 100 and b["accuracy"] == pytest.approx(
        b["score"]
    ) == pytest.approx(b["harness"])


def test_mia_bench_with_a_judge_and_with_one_that_fails(folder, monkeypatch):
    import requests

    monkeypatch.setenv("OPENAI_API_KEY", "k")
    grades = SimpleNamespace(
        raise_for_status=lambda: None,
        json=lambda: dict(
            model="judge",
            choices=[
                dict(
                    message=dict(
                        content=(
                            "score of component 1: 4/5, score of component 2: 5/5, total score:"
                            " 9/10"
                        )
                    )
                )
            ],
        ),
    )
    monkeypatch.setattr(requests, "post", lambda *a, **k: grades)
    exams, left_out = real_exams([JUDGED, "POPE"], source=folder)
    r, _ = record(exams, right)
    assert (
        not left_out
        and r["left_out"] == {}
        and r["benchmarks"][JUDGED]["score"] == pytest.approx(90)
        and r["average"]["score"] == pytest.approx(95)
    )
    assert real_exams([JUDGED], source=folder, judge=False)[1]
    calls = []

    def dead(*a, **k):
        calls.append(a)
        raise OSError("no route")

    monkeypatch.setattr(requests, "post", dead)
    monkeypatch.setattr("time.sleep", lambda s: None)
    r, _ = record(exams, right)
    assert (
        list(r["benchmarks"]) == ["POPE"]
        and r["average"]["score"] == 100
        and "did not answer" in r["left_out"][JUDGED]
        and len(calls) <= 5 * 3
    )


def test_a_judge_that_names_no_total(folder, monkeypatch):
    "lmms-eval would count it as 0; it is asked once more, then the benchmark is left out"
    import requests

    monkeypatch.setenv("OPENAI_API_KEY", "k")
    said = []

    def post(*a, **k):
        content = said.pop(0) if said else "score of component 1: 4/5, total score: 9/10"
        answer = dict(model="judge", choices=[dict(message=dict(content=content))])
        return SimpleNamespace(raise_for_status=lambda: None, json=lambda: answer)

    monkeypatch.setattr(requests, "post", post)
    exams, _ = real_exams([JUDGED, "POPE"], source=folder)
    said[:] = ["I cannot grade this."]
    r, _ = record(exams, right)
    assert r["benchmarks"][JUDGED]["score"] == pytest.approx(90) and r["left_out"] == {}
    said[:] = ["I cannot grade this."] * 50
    r, _ = record(exams, right)
    n = r["left_out"][JUDGED].split(" of ")[1].split()[0]
    assert f"named no total, for {n} of {n} questions" in r["left_out"][JUDGED]
    assert list(r["benchmarks"]) == ["POPE"] and r["average"]["score"] == 100


def test_a_limit_takes_whole_questions_and_a_larger_one_contains_the_smaller(folder):
    for name in ("MMBench", "HRBench4K", "OCRBench"):
        groups = []
        for limit in (1, 2, 3):
            (exam,) = real_exams([name], source=folder, limit=limit)[0]
            r, _ = record([exam], right)
            assert r["benchmarks"][name]["n"] == limit and r["benchmarks"][name][
                "harness"
            ] == pytest.approx(100)
            groups.append({a["group"] for a in r["answers"][name]})
        assert groups[0] < groups[1] < groups[2]
        if name != "OCRBench":
            assert r["benchmarks"][name]["rows"] > 3


def test_sampling_is_seeded_and_greedy_without(folder):
    exams, _ = real_exams(["POPE"], source=folder)
    r, oracle = record(exams, right, temperature=0.7, seed=3)
    assert (
        oracle.how[0]["do_sample"]
        and oracle.how[0]["temperature"] == 0.7
        and r["provenance"]["parameters"]["seed"] == 3
    )
    r, oracle = record(exams, right)
    assert (
        oracle.how[0]["do_sample"] is False
        and "temperature" not in oracle.how[0]
        and "temperature" not in r["provenance"]["parameters"]
    )


def test_prepared_once_found_again(folder, tmp_path):
    m = prepare_benchmarks(tmp_path / "b", folder, ["HRBench4K", "POPE", JUDGED], limit=2)
    assert (
        m["files"]["HRBench4K"]["rows"] == 8
        and m["files"]["POPE"]["questions"] == 2
        and list(m["left_out"]) == [JUDGED]
    )
    assert m == prepare_benchmarks(tmp_path / "c", folder, ["HRBench4K", "POPE", JUDGED], limit=2)
    exams, left_out, asked = prepared_benchmarks(tmp_path / "b", cot=True)
    assert (
        [e.name for e in exams] == list(asked) == ["HRBench4K", "POPE"]
        and all(e.cot for e in exams)
        and left_out == m["left_out"]
    )
    copy = shutil.copytree(folder, tmp_path / "copy")
    prepare_benchmarks(tmp_path / "d", copy, ["POPE"])
    write_benchmarks_like(copy, questions=5, names=["POPE"])
    with pytest.raises(BadInput, match="run the benchmarks stage again"):
        prepared_benchmarks(tmp_path / "d")
    prepare_benchmarks(tmp_path / "n", "nano", ["POPE"], limit=2)
    assert prepared_benchmarks(tmp_path / "n")[0] == ["POPE"]


def test_the_hubs_cache_without_the_hub(folder, tmp_path, monkeypatch):
    "Benchmarks load from a cache in huggingface_hub's layout without a network"
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    commit = "0123456789abcdef0123456789abcdef01234567"
    for name in ("MMBench", "POPE"):
        repo = tmp_path / "cache" / ("datasets--" + REAL[name].dataset.replace("/", "--"))
        shutil.copytree(folder / REAL[name].dataset.replace("/", "__"), repo / "snapshots" / commit)
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text(commit)
    exams, _ = real_exams(["MMBench", "POPE"], source="hub", revisions=dict(POPE=commit))
    assert [e.about["revision"] for e in exams] == [commit] * 2 and record(exams, right)[0][
        "average"
    ]["score"] == 100
    with pytest.raises(BadInput, match="AI2D|ai2d.*cannot be reached"):
        real_exams(["AI2D"])
    with pytest.raises(BadInput, match="@other: the hub cannot be reached"):
        real_exams(["POPE"], revisions=dict(POPE="other"))


@pytest.mark.parametrize(
    "status, error, why",
    [
        (401, "RepositoryNotFoundError", "no such data set"),
        (403, "GatedRepoError", "gated"),
        (404, "RevisionNotFoundError", "no revision other"),
    ],
)
def test_what_the_hub_refuses(monkeypatch, status, error, why):
    import huggingface_hub
    import huggingface_hub.errors as errors

    raised = getattr(errors, error).__new__(getattr(errors, error))

    def fetch(*a, **k):
        raise raised

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(BadInput, match=why):
        real_exams(["POPE"], revisions=dict(POPE="other"))


def broken_copy(folder, tmp_path, name, change):
    "Copy one benchmark's repository and apply `change` to its table"
    import pyarrow.parquet as pq

    repo = tmp_path / "bad" / REAL[name].dataset.replace("/", "__")
    shutil.copytree(folder / repo.name, repo)
    for f in repo.rglob("*.parquet"):
        pq.write_table(change(pq.read_table(f)), f)
    return tmp_path / "bad"


def test_broken_pictures_are_named(folder, tmp_path):
    import pyarrow as pa

    from interlace.evaluation.harness import import_lmms_eval

    import_lmms_eval()
    assert not ImageFile.LOAD_TRUNCATED_IMAGES  # lmms-eval would fill them with grey

    def cut(table):
        rows = table.to_pylist()
        rows[1]["image"]["bytes"] = rows[1]["image"]["bytes"][:200]
        return pa.Table.from_pylist(rows, table.schema)

    bad = broken_copy(folder, tmp_path, "POPE", cut)
    with pytest.raises(BadInput, match="POPE row 1: the image cannot be decoded"):
        prepare_benchmarks(tmp_path / "out", bad, ["POPE"])
    assert not (tmp_path / "out").exists()
    exams, _ = real_exams(["POPE"], source=bad)
    model = Oracle([], right)
    with pytest.raises(BadInput, match="pope question 1: the image cannot be decoded"):
        evaluate(model, model, exams, batch_size=8, progress=False)

    def letters(table):
        return table.set_column(
            table.column_names.index("image"),
            table.schema.field("image"),
            pa.array(["no picture"] * len(table)),
        )

    with pytest.raises(
        BadInput, match=r"HRBench4K row 0: the image cannot be decoded .*\(12 rows in all\)"
    ):
        prepare_benchmarks(
            tmp_path / "out", broken_copy(folder, tmp_path, "HRBench4K", letters), ["HRBench4K"]
        )


def test_repositories_that_will_not_do(folder, tmp_path):
    def refused(why, **kw):
        with pytest.raises(BadInput, match=why) as e:
            real_exams(**kw)
        assert "\n" not in str(e.value)

    refused("no benchmark 'Pope'", names=["Pope"], source=folder)
    refused("no such folder; name one", source=tmp_path / "nowhere")
    refused("limit -1", source=folder, limit=-1)
    refused("OPENAI_API_KEY is not set", names=[JUDGED], source=folder, judge=True)
    refused("POPE is the data set lmms-lab-encoder/POPE", names=["POPE"], source=tmp_path)
    refused(
        "column 'question' is missing",
        names=["POPE"],
        source=broken_copy(folder, tmp_path, "POPE", lambda t: t.drop_columns(["question"])),
    )
    refused(
        "no rows",
        names=["ChartQA"],
        source=broken_copy(folder, tmp_path, "ChartQA", lambda t: t.slice(0, 0)),
    )
    bad = broken_copy(folder, tmp_path, "TextVQA", lambda t: t)
    (f,) = (bad / "lmms-lab-encoder__textvqa").rglob("*.parquet")
    f.rename(f.with_name("validation-00000-of-00003.parquet"))
    refused("1 of the 3 files", names=["TextVQA"], source=bad)
    f.with_name("validation-00000-of-00003.parquet").rename(
        f.with_name("train-00000-of-00001.parquet")
    )
    refused("no parquet file of split validation", names=["TextVQA"], source=bad)
    f.write_bytes(b"not parquet")
    refused("not readable as parquet", names=["TextVQA"], source=bad)
    with pytest.raises(BadInput, match="no benchmark to evaluate; MIABench"):
        evaluate(None, None, [], left_out=dict(MIABench="no judge"))
    with pytest.raises(BadInput, match="asked for twice"):
        evaluate(None, None, [*real_exams(["POPE"], source=folder)[0], "POPE-nano"])


def test_beside_nano_benchmarks(folder):
    exams, _ = real_exams(["POPE"], source=folder)

    class Both(Oracle):
        def batch_decode(self, ids, **_):
            return [self.known.get(self.asked[i], "nothing") for i in ids[:, 0]]

    both = Both(exams, right)
    r = evaluate(both, both, ["AI2D", *exams], questions=3, progress=False)
    assert (
        r["benchmarks"]["AI2D"]["score"] == 0
        and r["benchmarks"]["POPE"]["score"] == 100
        and "harness" not in r["benchmarks"]["AI2D"]
    )


def test_what_the_harness_warns_of_is_heard_once(folder, recwarn, capsys):
    (exam,) = real_exams(["POPE"], source=folder)[0]

    def task():
        from loguru import logger

        t = exam.task()
        process = t.config.process_results

        def process_results(doc, results):
            logger.warning("a column is odd")
            print("noise")
            return process(doc, results)

        t.config.process_results = process_results
        return t

    record([exam._replace(task=task)], right)
    assert [str(w.message) for w in recwarn if "lmms-eval" in str(w.message)] == [
        "lmms-eval: a column is odd"
    ] and not capsys.readouterr().out


def write_table(exam, tsv):
    "The questions of MMBench as VLMEvalKit stores them: a rotation names the row with its image"
    docs, seen, lines = exam.task().test_docs(), {}, []
    names = ("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "l2-category")
    for doc in docs:
        question = doc["index"] % 10**6
        image = str(seen.get(question, "")) or base64.b64encode(doc["image"]["bytes"]).decode()
        seen.setdefault(question, doc["index"])
        row = {**doc, "l2-category": doc["L2-category"]}
        text = ["" if str(row[n]) == "nan" else str(row[n]) for n in names]
        lines.append("\t".join([*text, image, "dev"]))
    tsv.write_text("\n".join(["\t".join([*names, "image", "split"]), *lines]) + "\n")


def test_mmbench_from_vlmevalkits_file(folder, tmp_path):
    (exam,), _ = real_exams(["MMBench"], source=folder)
    write_table(exam, tmp_path / "mmbench.tsv")
    out = tmp_path / "questions"
    write_mmbench(tmp_path / "mmbench.tsv", out / "mmbench")
    made = prepare_benchmarks(out, folder, ["MMBench"], revisions=dict(MMBench="./mmbench@"))
    assert made["files"]["MMBench"]["dataset"] == "./mmbench"
    (own,), _, _ = prepared_benchmarks(out)
    theirs, ours = list(rows_of(exam)), list(rows_of(own))
    for (text, images, doc, target), (text2, images2, doc2, target2) in zip(
        theirs, ours, strict=True
    ):
        assert (text, target, doc["index"]) == (text2, target2, doc2["index"])
        assert [i.tobytes() for i in images] == [i.tobytes() for i in images2]
    a, _ = record([exam], lambda exam, doc, target: target if doc["index"] % 2 else "A")
    b, _ = record([own], lambda exam, doc, target: target if doc["index"] % 2 else "A")
    theirs, ours = (r["benchmarks"]["MMBench"] for r in (a, b))
    assert ours == theirs | dict(dataset="./mmbench", bytes=ours["bytes"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.replace("l2-category", "category2"), "column 'l2-category' is missing"),
        (lambda t: t.splitlines()[0] + "\n", "no rows"),
        (lambda t: t.replace("\n", "\nx", 1), "is no whole number"),
        (lambda t: re.sub(r"\t[\w+/=]{65,}\t", "\t\t", t), "has no image"),
        (lambda t: re.sub(r"\t[\w+/=]{65,}\t", "\t" + "é" * 80 + "\t", t), "has no image"),
        (lambda t: t.replace("\n", "\n²", 1), "is no whole number"),
        (lambda t: t + t.splitlines()[-1] + "\n", "1 rows have an index twice"),
        (lambda t: t[: t.rindex("\tdev")] + "\n", "has no split"),
        (lambda t: re.sub(r"\t[A-D]\t(?=\w+\tcoarse)", "\tF\t", t), "and no such option"),
    ],
)
def test_a_damaged_file_of_mmbench_is_one_line(folder, tmp_path, change, said):
    (exam,), _ = real_exams(["MMBench"], source=folder)
    write_table(exam, tmp_path / "mmbench.tsv")
    text = change((tmp_path / "mmbench.tsv").read_text())
    (tmp_path / "mmbench.tsv").write_text(text)
    with pytest.raises(BadInput, match=said):
        write_mmbench(tmp_path / "mmbench.tsv", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.parquet"))

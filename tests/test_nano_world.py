"""Tests that the nano world is deterministic, disjoint, balanced and answerable."""

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from interlace.core.errors import BadInput
from interlace.evaluation.metrics import METRICS, chance
from interlace.nano.benchmarks import (
    BENCHMARKS,
    DOMAINS,
    ask,
    write_nano_benchmarks,
    write_nano_data,
)
from interlace.nano.families import CANVAS, PLACES
from interlace.nano.samples import FAMILIES, conversation, final_answer, reasoned, scene
from interlace.nano.world import SIZE, SPLITS, split_of


def digest(s):
    return hashlib.sha256(s.draw().tobytes()).hexdigest()


def test_same_name_same_picture_in_any_order():
    names = [(n, sp, i) for n in FAMILIES for sp in SPLITS for i in range(3)]
    forward = {k: (digest(scene(*k)), conversation(*k)["texts"]) for k in names}
    with ThreadPoolExecutor(4) as pool:
        backward = dict(
            pool.map(lambda k: (k, (digest(scene(*k)), conversation(*k)["texts"])), reversed(names))
        )
    assert forward == backward


def test_same_in_another_process():
    code = (
        "import hashlib; from interlace.nano.samples import *;"
        " images = (scene(n, 'train', 1).draw().tobytes() for n in FAMILIES);"
        " print(hashlib.sha256(b''.join(images)).hexdigest())"
    )
    here = hashlib.sha256(
        b"".join(scene(n, "train", 1).draw().tobytes() for n in FAMILIES)
    ).hexdigest()
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == here
    )


def test_no_split_shares_a_picture():
    """No image occurs in two splits, so no question about an image does either.

    The hash of the specification ensures this by construction; the test checks the images.
    """
    for name in FAMILIES:
        seen = {}
        for split, n in (("pretrain", 150), ("train", 100), ("calibration", 60), ("test", 100)):
            for i in range(n):
                s = scene(name, split, i)
                assert split_of(s.key) == split
                assert seen.setdefault(digest(s), split) == split, (
                    f"{name}: a picture of {seen[digest(s)]} is in {split} too"
                )


def test_every_question_has_its_answer():
    for name in FAMILIES:
        for i in range(40):
            for q in scene(name, "train", i).questions:
                assert q.answer
                if q.options:
                    assert (
                        len(set(q.options)) == len(q.options)
                        and q.options["ABCD".index(q.reference())] == q.answer
                    )


def test_captions_tell_the_truth():
    "Captions of a few families agree with the specification"
    for i in range(30):
        s = scene("chart_bars", "train", i)
        assert s.caption == ", ".join(
            f"{n} {v}" for n, v in zip(s.spec["names"], s.spec["values"], strict=True)
        )
        o = scene("objects", "train", i)
        assert o.caption == "; ".join(
            f"{PLACES[t['cell']]} {t['colour']} {t['shape']}" for t in o.spec["things"]
        )
        p = scene("chart_pies", "train", i)
        assert (
            sum(
                int(w.rstrip("%"))
                for v in p.caption.split(", ")
                for w in v.split()
                if w.endswith("%")
            )
            == 100
        )
        m = scene("science_magnets", "train", i)
        assert ("repel" in m.caption) == (m.spec["poles"][1] == m.spec["poles"][2])


def test_a_caption_in_any_order_says_the_same():
    turned = 0
    for name in FAMILIES:
        for i in range(20):
            s = scene(name, "train", i)
            assert sorted(s.caption.replace(";", " ").replace(",", " ").split()) == sorted(
                s.free.replace(";", " ").replace(",", " ").split()
            )
            turned += s.free != s.caption
    assert turned > 5 * 20


def test_what_is_said_by_name_is_true():
    "Captions by name agree with the specification: colours, places and comparisons"
    for i in range(40):
        for name in ("objects", "wide"):
            s = scene(name, "train", i)
            for fact in s.named.split("; "):
                words = fact.replace(",", "").split()
                mine = [
                    t
                    for t in s.spec["things"]
                    if t["shape"] in words[:3] and t["colour"] in words[:4]
                ]
                assert len(mine) == 1, fact
                if name == "objects":
                    assert fact.endswith(PLACES[mine[0]["cell"]])
                elif " from the " in fact:
                    other = next(
                        t for t in s.spec["things"] if t["shape"] == words[words.index("from") + 2]
                    )
                    assert ("above" in words) == (mine[0]["row"] < other["row"]) and (
                        "left" in words[words.index("from") :]
                    ) == (mine[0]["column"] < other["column"])
        c = scene("chart_bars", "train", i)
        value = dict(zip(c.spec["names"], c.spec["values"], strict=True))
        for before, fact in zip(c.named.split("; "), c.named.split("; ")[1:], strict=False):
            a, b = value[before.split()[0]], value[fact.split()[0]]
            assert (
                ("larger" in fact) == (b > a)
                and ("smaller" in fact) == (b < a)
                and ("equal" in fact) == (a == b)
            )


def test_the_check_list_is_right():
    for i in range(30):
        s = scene("objects", "train", i)
        there = {f"{t['colour']} {t['shape']}" for t in s.spec["things"]}
        for q in s.questions:
            if q.kind == "check":
                for item in q.answer.split(", "):
                    assert (item.rpartition(" ")[0] in there) == item.endswith(" yes")


def _one(k):
    return digest(scene(*k)), conversation(*k)["texts"]


def test_same_on_any_number_of_workers():
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    names = [(n, "train", i) for n in FAMILIES for i in range(2)]
    alone = [_one(k) for k in names]
    for workers in (1, 3):
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            assert list(pool.map(_one, names)) == alone


def test_canvases():
    for name in FAMILIES:
        assert scene(name, "test", 0).draw().size == (CANVAS.get(name, SIZE),) * 2
    assert min(CANVAS.values()) >= 2 * SIZE
    for i in range(20):
        s = scene("search", "test", i)
        tiny = [t for t in s.spec["things"] if t["tiny"]]
        assert len(tiny) == 1 and 2 * tiny[0]["r"] < 0.08 * CANVAS["search"]
        assert all(
            tiny[0]["shape"] in q.prompt for q in s.questions if q.kind in ("attribute", "position")
        )


def test_relative_positions_are_true():
    for i in range(30):
        s = scene("wide", "test", i)
        at = {t["shape"]: t for t in s.spec["things"]}
        for q in s.questions:
            if q.kind != "cross":
                continue
            a, b = (at[w] for w in q.prompt.rstrip("?").replace(",", "").split() if w in at)
            assert (
                q.answer == f"{'above' if a['row'] < b['row'] else 'below'}"
                f" {'left' if a['column'] < b['column'] else 'right'}"
            )


def test_mmbench_asks_every_rotation(tmp_path):
    from datasets import Dataset

    write_nano_benchmarks(tmp_path, 6, ["MMBench"])
    rows = Dataset.from_parquet(str(tmp_path / "MMBench.parquet"))
    for g in range(6):
        mine = [r for r in rows if r["group"] == g]
        assert len(mine) == len(mine[0]["options"]) and len({r["question"] for r in mine}) == len(
            mine
        )
        right = {r["options"]["ABCD".index(r["answer"])] for r in mine}
        assert len(right) == 1 and len({r["answer"] for r in mine}) == len(
            mine
        )  # the same answer, every letter once


def test_reasoning_ends_in_the_answer():
    for name in FAMILIES:
        for i in range(5):
            s = scene(name, "train", i)
            for q in s.questions:
                assert final_answer(reasoned(s, q)["assistant"]) == q.answer
    assert (
        final_answer("red circle left, blue") == ""
        and final_answer("Answer: A. No. Answer: B") == "B"
    )


def test_domains_are_subsets():
    assert all(set(v) <= set(FAMILIES) for v in DOMAINS.values()) and set(DOMAINS) == {
        "ChartQA",
        "TextVQA",
        "ScienceQA",
    }


@pytest.mark.parametrize("name", BENCHMARKS)
def test_perfect_answers_score_100_and_constant_ones_chance(name):
    rows, metric = [ask(name, i) for i in range(120)], METRICS[BENCHMARKS[name].metric]
    assert all(metric(r["answer"], r["answer"]) == 1 for r in rows)
    assert all(metric("", r["answer"]) == 0 for r in rows)
    assert chance([r["answer"] for r in rows], metric) <= 60
    for r in rows:
        assert metric("A pink elephant." if len(r["answer"]) > 1 else "E", r["answer"]) == 0
    assert {r["subset"] for r in rows} == set(BENCHMARKS[name].kinds)


def test_pope_is_balanced():
    assert [ask("POPE", i)["answer"] for i in range(200)].count("yes") == 100


def test_files_are_equal_when_written_twice(tmp_path):
    a, b = (write_nano_data(tmp_path / x, fraction=0.00005) for x in "ab")
    assert a == b and a["files"]["train.parquet"]["rows"] == len(FAMILIES)
    assert {f.name for f in (tmp_path / "a").iterdir()} == {
        "train.parquet",
        "calibration.parquet",
        "manifest.json",
    }
    write_nano_data(tmp_path / "e", fraction=0.00005, domains=["ChartQA"])
    assert write_nano_data(
        tmp_path / "f",
        fraction=0.00005 * len(FAMILIES) / len(DOMAINS["ChartQA"]),
        calibration=None,
        subsets=list(DOMAINS["ChartQA"]),
    ) == json.loads((tmp_path / "e" / "ChartQA" / "manifest.json").read_text())
    c, d = (write_nano_benchmarks(tmp_path / x, questions=3) for x in "cd")
    assert c == d and {f.name for f in (tmp_path / "c").iterdir()} == {
        "manifest.json",
        *(f"{n}.parquet" for n in BENCHMARKS),
    }


@pytest.mark.parametrize(
    "settings, why",
    [
        (dict(fraction=0), "fraction"),
        (dict(fraction=2), "fraction"),
        (dict(calibration=-1), "calibration"),
        (dict(subsets=["objekts"]), "objekts"),
        (dict(domains=["POPE"]), "no domain 'POPE'"),
        (dict(benchmarks=["MMLU"]), "MMLU"),
        (dict(questions=0), "questions 0"),
    ],
)
def test_wrong_settings(settings, why, tmp_path):
    write = (
        write_nano_benchmarks if {"benchmarks", "questions"} & set(settings) else write_nano_data
    )
    with pytest.raises(BadInput, match=why):
        write(tmp_path, **settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [("objekts", "train", 0), ("objects", "exam", 0)])
def test_unknown_names(name):
    with pytest.raises(BadInput):
        scene(*name)

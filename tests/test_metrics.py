"""Tests of every metric against cases worked by hand, and of the sums over benchmarks.

The answers are right, wrong, malformed or empty.
"""

import math
from pathlib import Path

import pytest

from interlace.core.errors import BadInput
from interlace.core.files import read_json
from interlace.evaluation.harness import evaluate, in_memory
from interlace.evaluation.metrics import (
    chance,
    contains,
    exact,
    form,
    mean_and_error,
    question_scores,
    relaxed,
    summary,
    yes_no_table,
    yesno,
)
from interlace.models.loading import load_model
from interlace.models.sources import model_folder
from interlace.nano.benchmarks import BENCHMARKS

CASES = [
    (exact, "B", "B", 1),
    (exact, "B.", "B", 1),
    (exact, "(B)", "B", 1),
    (exact, "B: red", "B", 1),
    (exact, "b", "B", 0),
    (exact, "AB", "B", 0),
    (exact, "A. B", "B", 0),
    (exact, "", "B", 0),
    (exact, "left", "left", 1),
    (exact, " Left. ", "left", 1),
    (exact, "left side", "left", 0),
    (exact, "", "left", 0),
    (relaxed, "100", "100", 1),
    (relaxed, "105", "100", 1),
    (relaxed, "95", "100", 1),
    (relaxed, "106", "100", 0),
    (relaxed, "7", "8", 0),
    (relaxed, "30%", "30", 1),
    (relaxed, "1,000", "1000", 1),
    (relaxed, "0", "0", 1),
    (relaxed, "1", "0", 0),
    (relaxed, "red", "red", 1),
    (relaxed, "red", "blue", 0),
    (relaxed, "", "8", 0),
    (relaxed, "eight", "8", 0),
    (contains, "it says lemon here", "lemon", 1),
    (contains, "LEMON", "lemon", 1),
    (contains, "lem on", "lemon", 0),
    (contains, "", "lemon", 0),
    (contains, "lemon", "", 0),
    (form, "RED, BLUE", "RED, BLUE", 1),
    (form, "BLUE, RED", "RED, BLUE", 0.75),
    (form, "red, blue", "RED, BLUE", 0.75),
    (form, "RED / BLUE", "RED, BLUE", 0.75),
    (form, "RED", "RED, BLUE", 0.25),
    (form, "red blue", "RED, BLUE", 0.5),
    (form, "3, 3", "3, 3", 1),
    (form, "3", "3, 3", 0.25),
    (form, "4, 4", "3, 3", 0),
    (form, "", "RED", 0),
    (form, "green", "RED", 0),
    (form, " RED ", "RED", 1),
    (yesno, "yes", "yes", 1),
    (yesno, "Yes.", "yes", 1),
    (yesno, "yes, there is", "yes", 0),
    (yesno, "no", "yes", 0),
    (yesno, "", "no", 0),
]


@pytest.mark.parametrize(
    "answer, want",
    [("B", 1), ("K", 1), ("k.", 1), ("B. K", 1), ("A", 0), ("R", 0), ("Z", 0), ("", 0), ("K R", 0)],
)
def test_a_choice_by_letter_or_by_text(answer, want):
    assert exact(answer, "B", ["R", "K", "T", "X"]) == want


def test_chance_of_a_choice_counts_constant_texts_too():
    options = [["left", "right"], ["right", "left"], ["left", "right"], ["right", "left"]]
    assert (
        chance(["A", "B", "A", "A"], exact) == 75
        and chance(["A", "B", "A", "B"], exact, options=options) == 100
    )  # always "left"


@pytest.mark.parametrize("metric, answer, reference, want", CASES)
def test_metric(metric, answer, reference, want):
    assert metric(answer, reference) == want


def test_mean_and_error():
    score, error = mean_and_error([1, 0, 1, 1])
    assert score == 75 and error == pytest.approx(25)  # sd of (100, 0, 100, 100) is 50; / sqrt(4)
    assert math.isnan(mean_and_error([1])[1])


def test_average_is_over_benchmarks_not_categories():
    def row(score, category, stderr=3.0):
        return dict(score=score, stderr=stderr, category=category)

    s = summary(dict(a=row(90, "X"), b=row(60, "X"), c=row(30, "Y", 4.0)))
    assert (
        s["average"]["score"] == 60
        and s["categories"]["X"]["score"] == 75
        and s["categories"]["Y"]["score"] == 30
    )
    assert s["average"]["stderr"] == pytest.approx(math.sqrt(9 + 9 + 16) / 3)


def test_chance():
    assert chance(["A", "B", "B", "C"], exact) == 50 and chance(
        ["100", "103", "7"], relaxed
    ) == pytest.approx(200 / 3)


def test_a_question_counts_only_if_every_rotation_is_right():
    def asked(*scores):
        return [dict(score=s, group=g) for g, s in scores]

    assert question_scores(
        asked((0, 1), (0, 1), (0, 1), (0, 1), (1, 1), (1, 1), (1, 0), (1, 1), (2, 1))
    ) == [1, 0, 1]
    assert (
        chance(["A", "B", "C", "D"] * 2, exact, groups=[0] * 4 + [1] * 4) == 0
        and chance(["A", "A", "B", "B"], exact, groups=[0, 0, 1, 1]) == 50
    )


def test_yes_no_table():
    rows = [
        dict(answer=a, reference=r)
        for a, r in (
            ("yes", "yes"),
            ("Yes.", "yes"),
            ("no", "yes"),
            ("yes", "no"),
            ("no", "no"),
            ("perhaps", "no"),
            ("", "no"),
            ("no", "no"),
        )
    ]
    t = yes_no_table(rows)
    assert (
        t["accuracy"] == 50
        and t["precision"] == pytest.approx(200 / 3)
        and t["recall"] == pytest.approx(200 / 3)
        and t["f1"] == pytest.approx(200 / 3)
        and t["yes_ratio"] == 37.5
    )
    assert math.isnan(yes_no_table([dict(answer="no", reference="no")])["precision"])


@pytest.fixture(scope="module")
def nano():
    return load_model("nano-l", attention="eager")


def test_in_a_batch_or_alone_the_same_answers(nano):
    from interlace.nano.benchmarks import BENCHMARKS

    records = [
        evaluate(*nano, list(BENCHMARKS), questions=5, batch_size=b, progress=False)
        for b in (1, 7, 64)
    ]
    said = [[a["answer"] for n in BENCHMARKS for a in r["answers"][n]] for r in records]
    assert said[0] == said[1] == said[2] and all(
        r["benchmarks"][n]["n"] == 5 for r in records for n in BENCHMARKS
    )


def test_the_first_questions_of_a_folder_are_asked_with_all_their_rotations(nano, tmp_path):
    from interlace.nano.benchmarks import write_nano_benchmarks

    names = ["MMBench", "POPE"]
    write_nano_benchmarks(tmp_path, 5, names)
    some, every = (
        evaluate(*nano, names, tmp_path, questions=n, batch_size=32, progress=False)
        for n in (2, None)
    )
    assert [len(every["answers"][n]) for n in names] == [20, 5]
    for name, rows in zip(names, (8, 2), strict=True):
        assert some["answers"][name] == every["answers"][name][:rows]
        assert some["benchmarks"][name]["n"] == 2
    with pytest.raises(BadInput, match="questions 0: each benchmark needs at least 1"):
        evaluate(*nano, names, tmp_path, questions=0, progress=False)


def test_fast_decoding_gives_the_answers_of_plain_decoding(monkeypatch):
    from interlace.models import decoding
    from interlace.nano.benchmarks import BENCHMARKS

    def answers(attention):
        model = load_model("nano-l", "float32", attention)
        how = dict(questions=3, batch_size=36, cot=True, progress=False)
        record = evaluate(*model, list(BENCHMARKS), **how)
        return [a["answer"] for n in BENCHMARKS for a in record["answers"][n]]

    fast = answers("sdpa")
    # an attention other than SDPA keeps its own kernel; the cache is the usual one, too
    monkeypatch.setattr(decoding, "cache_for_decoding", lambda model: {})
    assert fast == answers("eager")


def test_questions_with_different_settings_do_not_share_a_batch(nano, tmp_path):
    from types import SimpleNamespace

    from interlace.nano.benchmarks import ask

    q = ask("ChartQA", 1)
    messages = [
        dict(
            role="user",
            content=[
                dict(type="image", url=q["image"]),
                dict(type="text", text="Describe the picture."),
            ],
        )
    ]
    harness = in_memory(*nano, batch_size=8, progress=False)
    harness.task_dict = dict(t=dict(test=[None] * 4))

    def ask_for(i, n):
        return SimpleNamespace(
            args=(None, lambda doc: messages, dict(max_new_tokens=n, until=[]), i, "t", "test")
        )

    short, long, again, stop = harness.generate_until(
        [
            ask_for(0, 2),
            ask_for(1, 24),
            ask_for(2, 2),
            SimpleNamespace(
                args=(
                    None,
                    lambda doc: messages,
                    dict(max_new_tokens=24, until=[","]),
                    3,
                    "t",
                    "test",
                )
            ),
        ]
    )
    assert (
        short == again
        and long.startswith(short)
        and len(long) > len(short)
        and stop == long.split(",")[0]
    )


def test_with_reasoning_only_the_final_answer_counts(nano):
    record = evaluate(
        *nano,
        ["POPE", "AI2D"],
        questions=6,
        batch_size=12,
        cot=True,
        max_new_tokens=3,
        progress=False,
    )  # too short to finish
    assert record["average"]["score"] == 0 and all(
        a["answer"] == "" and a["said"] for n in ("POPE", "AI2D") for a in record["answers"][n]
    )


@pytest.mark.parametrize(
    "name, asked", [("nano-l", None), ("nano-s", ["POPE", "RealWorldQA", "ScienceQA"])]
)
def test_a_nano_model_is_what_its_record_says(name, asked):
    "The shipped weights reproduce the shipped record on its first questions"
    shipped = read_json(f"{model_folder(name)}/evaluation.json")["benchmarks"]
    record = evaluate(
        *load_model(name, attention="eager"),
        asked or list(BENCHMARKS),
        questions=60,
        batch_size=60,
        progress=False,
    )
    assert set(shipped) == set(BENCHMARKS)
    for b, r in record["benchmarks"].items():
        assert abs(r["score"] - shipped[b]["score"]) <= 4 * math.hypot(
            r["stderr"], shipped[b]["stderr"]
        ), b


def test_the_nano_models_are_small_and_deep():
    "What they have learnt is checked against the criteria in test_nano_model.py"
    for m in ("nano-l", "nano-s"):
        folder = Path(model_folder(m))
        assert (folder / "model.safetensors").stat().st_size <= 25 * 2**20
        assert read_json(folder / "config.json")["text_config"]["num_hidden_layers"] == 36

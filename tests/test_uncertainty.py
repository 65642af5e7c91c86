"""Tests of intervals against fresh samples and arithmetic by hand, and of valid record sets."""

import numpy as np
import pytest

from interlace.core.errors import BadInput
from interlace.core.files import write_json
from interlace.evaluation.uncertainty import (
    detectable_difference,
    difference,
    draws,
    figures,
    interval,
    relative,
    shown,
    with_intervals,
)
from interlace.reproduction.artifacts import read_runs
from interlace.reproduction.claims import claims, paper_table, reported


def record(scores, category="one"):
    "Make a record; `scores` maps each benchmark to the scores of its questions, 0 to 1"
    return dict(
        benchmarks={
            b: dict(
                score=100 * float(np.mean(s)),
                category=category if isinstance(category, str) else category[b],
            )
            for b, s in scores.items()
        },
        answers={
            b: [dict(score=float(v), group=i) for i, v in enumerate(s)] for b, s in scores.items()
        },
    )


def test_relative_is_a_mean_of_ratios():
    def r(**scores):
        return dict(benchmarks={k: dict(score=v) for k, v in scores.items()})

    assert relative(r(a=40, b=90), r(a=80, b=90)) == 75
    with pytest.raises(BadInput, match="different benchmarks"):
        relative(r(a=1), r(b=1))
    with pytest.raises(BadInput, match="scores 0"):
        relative(r(a=1), r(a=0))


def test_figures_by_hand():
    a, b = (
        record(dict(x=[1, 0, 1, 0], y=[1, 1, 1, 0]), dict(x="p", y="q")),
        record(dict(x=[1, 1, 1, 1], y=[1, 0, 1, 0]), dict(x="p", y="q")),
    )
    f = figures([a], [b], 50)
    assert (f["x"][0], f["y"][0], f["p"][0], f["q"][0], f["average"][0]) == (
        50,
        150,
        50,
        150,
        100,
    ) and f["average"][0] == relative(a, b)
    assert len(f["x"]) == 51 and np.allclose(f["average"], (f["x"] + f["y"]) / 2, equal_nan=True)
    mean = figures([a, b], n=10)  # two seeds: question by question
    assert mean["x"][0] == 75 and mean["average"][0] == 68.75


def test_the_relative_figure_spreads_as_over_fresh_samples():
    rng = np.random.Generator(np.random.PCG64(0))

    def pair():  # what the weak model gets right, the strong one mostly gets right too
        b = rng.random(150) < 0.8
        return record(dict(x=b & (rng.random(150) < 0.6))), record(dict(x=b))

    pairs = [pair() for _ in range(300)]
    over_samples = np.std([relative(*p) for p in pairs], ddof=1)
    assert np.mean(
        [figures([a], [b], 400)["average"][1:].std(ddof=1) for a, b in pairs[:40]]
    ) == pytest.approx(over_samples, rel=0.15)
    inside = [
        i["low"] <= 60 <= i["high"]
        for a, b in pairs
        for i in [interval(figures([a], [b], 200)["average"])]
    ]
    assert 0.9 < np.mean(inside) < 0.99  # a 95% interval holds the truth about so often


def test_pairing_takes_out_what_both_share():
    rng = np.random.default_rng(1)
    base = rng.random(200) < 0.5
    a, b = record(dict(x=base)), record(dict(x=base & (rng.random(200) < 0.85)))
    paired, alone = difference(figures([a]), figures([b])), interval(figures([a])["average"])
    assert (
        paired["high"] - paired["low"] < 0.6 * (alone["high"] - alone["low"]) and paired["low"] > 0
    )
    assert difference(figures([a]), figures([a])) == dict(value=0, low=0, high=0)


def test_draws_do_not_depend_on_the_order_of_benchmarks():
    s = dict(x=np.arange(20) % 2, y=np.arange(20) % 3 == 0)
    a, b = draws([record(s)]), draws([record(dict(reversed(s.items())))])
    assert all(np.array_equal(a[k], b[k]) for k in s)


def test_a_reference_of_nothing_gives_no_number():
    f = with_intervals([record(dict(x=[1, 0], y=[1, 1]))], [record(dict(x=[0, 0], y=[1, 1]))])
    assert shown(f["x"]) == shown(f["average"]) == "–" and f["y"]["value"] == 100


def test_spread_over_seeds():
    runs = [record(dict(x=[1] * k + [0] * (10 - k))) for k in (4, 5, 6)]
    m = with_intervals(runs)["average"]
    assert (
        m["over_seeds"] == pytest.approx(10)
        and m["value"] == pytest.approx(50)
        and np.isnan(with_intervals(runs[:1])["average"]["over_seeds"])
    )


def test_the_interval_covers_seeds_and_questions():
    "The interval covers the truth about as often as it says, for differing seeds and questions"
    rng = np.random.Generator(np.random.PCG64(3))

    def variant(n=150, seeds=5):
        hard = rng.normal(size=n)
        skill = 0.5 + 0.35 * rng.normal(size=seeds)
        return [record(dict(x=hard + rng.normal(size=n) < s)) for s in skill]

    truth = 100 * np.mean(
        [r["answers"]["x"][i]["score"] for _ in range(200) for r in variant() for i in range(150)]
    )
    covered, alone = [], []
    for _ in range(150):
        runs = variant()
        i = interval(figures(runs, n=400)["average"])
        pooled = record(dict(x=np.mean([[a["score"] for a in r["answers"]["x"]] for r in runs], 0)))
        q = interval(figures([pooled], n=400)["average"])
        covered.append(i["low"] <= truth <= i["high"])
        alone.append(q["low"] <= truth <= q["high"])
    assert 0.82 < np.mean(covered) < 0.99  # five seeds: a little below 95%
    assert np.mean(alone) < np.mean(covered) - 0.1  # questions alone promise too much


def test_the_spread_over_seeds_is_that_of_fresh_runs():
    rng = np.random.Generator(np.random.PCG64(5))
    sizes = []
    for _ in range(300):
        runs = [record(dict(x=[v])) for v in rng.random(4)]  # one question: seeds alone
        sizes.append(draws(runs, 2000)["x"][1:].var())
    assert np.mean(sizes) == pytest.approx(
        100**2 / 12 / 4, rel=0.1
    )  # the variance of a mean of four uniform numbers


def test_the_detectable_difference_is_found_four_times_in_five():
    rng = np.random.Generator(np.random.PCG64(7))

    def pair(gap, n=400):
        a, b = rng.random(n), rng.random(n)
        return record(dict(x=a < 0.7 + gap)), record(
            dict(x=np.where(rng.random(n) < 0.5, a, b) < 0.7)
        )

    least = (
        np.mean([detectable_difference(*(figures([r], n=300) for r in pair(0))) for _ in range(20)])
        / 100
    )
    found = [
        difference(figures([a], n=400), figures([b], n=400))["low"] > 0
        for a, b in (pair(least) for _ in range(150))
    ]
    assert 0.7 < np.mean(found) < 0.9


@pytest.mark.parametrize(
    "a, b, why",
    [
        (dict(x=[1, 0]), dict(y=[1, 0]), "different benchmarks"),
        (dict(x=[1, 0]), dict(x=[1, 0, 1]), "2 and 3"),
    ],
)
def test_unlike_records(a, b, why):
    with pytest.raises(BadInput, match=why):
        figures([record(a)], [record(b)])


def test_seeds_of_other_questions():
    with pytest.raises(BadInput, match="2 and 3"):
        draws([record(dict(x=[1, 0])), record(dict(x=[1, 0, 1]))])


def test_runs_that_cannot_be_compared(tmp_path):
    one = dict(
        kind="variant",
        model="m",
        variant="dense",
        method="dense",
        plan=dict(strategy="dense"),
        seed=42,
        data="a",
    )
    for n, r in enumerate((one, one | dict(data="b"), dict(kind="scores"))):
        write_json(tmp_path / f"{n}.json", r)
    assert list(read_runs([tmp_path / "0.json"])) == [("m", "dense")]
    with pytest.raises(BadInput, match="other questions"):
        read_runs([tmp_path / "0.json", tmp_path / "1.json"])
    with pytest.raises(BadInput, match="kind 'scores'"):
        read_runs([tmp_path / "2.json"])


def test_claims_are_the_papers():
    found = {c["id"]: c for c in claims()}
    assert (
        found["comparison/INTERLACE/relative"]["paper"]
        == paper_table("comparison_8b_25").loc["INTERLACE", "relative"]
        == 88.9
    )
    assert (
        found["order/comparison/INTERLACE > SLEB"]["paper"] == (88.9, 60.5)
        and found["order/ablation/Interlace-OA > Random"]["kind"] == "ordering"
    )
    assert (
        len([c for c in found.values() if c["id"].startswith("ratios/")]) == 8
        and reported()["source"]["read_from"]
    )
    assert all(c["paper"] is not None for c in found.values())

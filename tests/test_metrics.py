"""Every metric against cases worked by hand: right, wrong, malformed, empty. And the sums over benchmarks."""
import math

import pytest
from interlace.evaluation import chance, contains, exact, mean_and_error, relative, relaxed, summary, yesno
from interlace.project import BadInput

CASES = [
    (exact, "B", "B", 1), (exact, "B.", "B", 1), (exact, "(B)", "B", 1), (exact, "B: red", "B", 1), (exact, "b", "B", 0), (exact, "AB", "B", 0), (exact, "A. B", "B", 0), (exact, "", "B", 0),
    (exact, "left", "left", 1), (exact, " Left. ", "left", 1), (exact, "left side", "left", 0), (exact, "", "left", 0),
    (relaxed, "100", "100", 1), (relaxed, "105", "100", 1), (relaxed, "95", "100", 1), (relaxed, "106", "100", 0), (relaxed, "7", "8", 0), (relaxed, "30%", "30", 1), (relaxed, "1,000", "1000", 1),
    (relaxed, "0", "0", 1), (relaxed, "1", "0", 0), (relaxed, "red", "red", 1), (relaxed, "red", "blue", 0), (relaxed, "", "8", 0), (relaxed, "eight", "8", 0),
    (contains, "it says lemon here", "lemon", 1), (contains, "LEMON", "lemon", 1), (contains, "lem on", "lemon", 0), (contains, "", "lemon", 0), (contains, "lemon", "", 0),
    (yesno, "yes", "yes", 1), (yesno, "Yes.", "yes", 1), (yesno, "yes, there is", "yes", 0), (yesno, "no", "yes", 0), (yesno, "", "no", 0),
]


@pytest.mark.parametrize("metric, answer, reference, want", CASES)
def test_metric(metric, answer, reference, want): assert metric(answer, reference) == want


def test_mean_and_error():
    score, error = mean_and_error([1, 0, 1, 1])
    assert score == 75 and error == pytest.approx(25)          # sd of (100, 0, 100, 100) is 50; / sqrt(4)
    assert math.isnan(mean_and_error([1])[1])


def test_average_is_over_benchmarks_not_categories():
    row = lambda score, category, stderr=3.: dict(score=score, stderr=stderr, category=category)
    s = summary(dict(a=row(90, "X"), b=row(60, "X"), c=row(30, "Y", 4.)))
    assert s["average"]["score"] == 60 and s["categories"]["X"]["score"] == 75 and s["categories"]["Y"]["score"] == 30
    assert s["average"]["stderr"] == pytest.approx(math.sqrt(9 + 9 + 16)/3)


def test_relative_is_a_mean_of_ratios():
    r = lambda **s: dict(benchmarks={k: dict(score=v) for k, v in s.items()})
    assert relative(r(a=40, b=90), r(a=80, b=90)) == 75
    with pytest.raises(BadInput, match="different benchmarks"): relative(r(a=1), r(b=1))
    with pytest.raises(BadInput, match="scores 0"): relative(r(a=1), r(a=0))


def test_chance():
    assert chance(["A", "B", "B", "C"], exact) == 50 and chance(["100", "103", "7"], relaxed) == pytest.approx(200/3)

"""Plans agree with a second implementation of the algorithms, and wrong requests are refused."""

import dataclasses
import json
import math
import sys

import numpy as np
import pytest

from interlace.core.errors import BadInput
from interlace.method.layer_scores import LayerScores
from interlace.method.selection import STRATEGIES, Plan, make_plan, n_drops


def random_scores(L, seed, last=False, ties=False):
    rng = np.random.default_rng(seed)

    def draw(n):
        return np.round(rng.random(n), 1) if ties else rng.random(n)

    return LayerScores.from_arrays({s: draw(L - s + last) for s in (1, 2, 3)}, n_layers=L)


# stable: ties keep the smaller index first
def second_opinion(scores, K):
    "A second implementation of INTERLACE's selection, with sets and explicit loops"
    S1, S2, S3 = (list(scores.similarity(s)) for s in (1, 2, 3))
    drop, tune, anchor = set(), set(), set()
    triplets = sorted(range(len(S3)), key=lambda i: S3[i], reverse=True)
    while triplets and len(drop) < K:
        i = triplets.pop(0)
        if {i, i + 1, i + 2} & (drop | tune | anchor):
            continue
        if S1[i] < S1[i + 1]:
            drop.add(i + 1)
            tune.add(i)
        else:
            drop.add(i)
            tune.add(i + 1)
        anchor.add(i + 2)
    pairs = sorted(range(len(S2)), key=lambda i: S2[i], reverse=True)
    while pairs and len(drop) < K:
        i = pairs.pop(0)
        if {i, i + 1} & (drop | tune | anchor):
            continue
        if S1[i] < S1[i + 1]:
            drop.add(i + 1)
            tune.add(i)
        else:
            drop.add(i)
            tune.add(i + 1)
    return drop, tune, anchor


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("L, ratio", [(36, 0.25), (36, 0.10), (28, 0.25), (12, 0.34), (7, 0.3)])
def test_interlace(L, ratio, seed):
    scores = random_scores(L, seed, last=seed % 2 == 0, ties=seed % 3 == 0)
    want = second_opinion(scores, math.floor(ratio * L + 1e-9))
    if len(want[0]) < n_drops(L, ratio):
        with pytest.raises(BadInput):
            make_plan(scores, ratio)
    else:
        p = make_plan(scores, ratio)
        assert (set(p.drop), set(p.tune), set(p.anchor)) == want and len(p.drop) == n_drops(
            L, ratio
        )


def test_pairs_are_used_when_triplets_run_out():
    L = 12
    S3 = np.full(L - 3, 0.1)
    S3[[1, 4, 7]] = [0.9, 0.8, 0.7]  # leaves 0, 10 and 11
    S2 = np.full(L - 2, 0.1)
    S1 = np.linspace(0.5, 0.9, L - 1)
    plan = make_plan(
        LayerScores.from_arrays(
            {1: np.append(S1, 0.2), 2: np.append(S2, 0.95), 3: np.append(S3, 0.05)}, n_layers=L
        ),
        ratio=4 / 12,
    )
    assert (
        plan.drop == (2, 5, 8, 10) and plan.tune == (1, 4, 7, 11) and plan.anchor == (3, 6, 9)
    )  # the pair (10, 11): S1(10) = .9 ≥ S1(11) = .2


@pytest.mark.parametrize("seed", range(20))
def test_ordered_assignment(seed):
    scores = random_scores(24, seed)
    plan = make_plan(scores, 0.2, "interlace-oa")
    assert (
        all(d + 1 in plan.tune and d + 2 in plan.anchor for d in plan.drop) and len(plan.drop) == 4
    )
    assert plan.drop[0] in range(22) and int(np.argmax(scores.similarity(3))) in plan.drop


@pytest.mark.parametrize("seed", range(20))
def test_train_next(seed):
    scores = random_scores(24, seed)
    plan, s1, taken, drops = (
        make_plan(scores, 0.25, "interlace-tn"),
        scores.similarity(1),
        set(),
        [],
    )
    for i in np.argsort(-s1, kind="stable"):
        if len(drops) < 6 and not {i, i + 1} & taken:
            drops.append(int(i))
            taken |= {i, i + 1}
    assert (
        plan.drop == tuple(sorted(drops))
        and plan.tune == tuple(sorted(d + 1 for d in drops))
        and plan.anchor == ()
    )


@pytest.mark.parametrize(
    "best, ratio, drop, tune",
    [
        (2, 0.25, (2, 3, 4), (5, 6, 7)),
        (10, 0.25, (6, 7, 8), (9, 10, 11)),
        (0, 0.75, tuple(range(9)), (9, 10, 11)),
        (8, 0.5, tuple(range(6)), tuple(range(6, 12))),
    ],
)
def test_consecutive(best, ratio, drop, tune):
    s1 = np.full(11, 0.5)
    s1[best] = 0.9
    plan = make_plan(
        LayerScores.from_arrays({1: s1, 2: np.full(10, 0.5), 3: np.full(9, 0.5)}, n_layers=12),
        ratio,
        "consecutive",
    )
    assert (plan.drop, plan.tune) == (drop, tune)


def test_random_is_seeded():
    scores = random_scores(36, 0)
    a, b, c = (make_plan(scores, 0.25, "random", seed=s) for s in (42, 42, 43))
    assert a == b != c and len(a.drop) == len(a.tune) == 9


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_to_drop(strategy):
    plan = make_plan(random_scores(12, 0), 0, strategy)
    assert plan.drop == plan.tune == plan.anchor == () and plan.kept == tuple(range(12))


@pytest.mark.parametrize("ratio", [1.5, 1, -0.1, float("nan"), "a quarter", None, True])
def test_wrong_ratios(ratio):
    with pytest.raises(BadInput, match="ratio"):
        make_plan(random_scores(12, 0), ratio)


def test_nan_scores():
    arrays = {s: np.full(12 - s, 0.5) for s in (1, 2, 3)}
    arrays[1][4] = np.nan
    with pytest.raises(BadInput, match=r"S_1\(4\)"):
        make_plan(LayerScores.from_arrays(arrays, n_layers=12), 0.25)


def test_scores_of_another_model():
    with pytest.raises(BadInput, match="12 layers and this one has 36"):
        make_plan(random_scores(12, 0), 0.25, n_layers=36)


def test_too_few_windows_says_how_many():
    with pytest.raises(BadInput, match=r"disjoint windows for only \d+ are left"):
        make_plan(random_scores(12, 1), 0.6)


def test_unknown_strategy():
    with pytest.raises(BadInput, match="interlace-oa"):
        make_plan(random_scores(12, 0), 0.25, "best")


@pytest.mark.parametrize(
    "plan",
    [dict(drop=(12,)), dict(drop=(1,), tune=(1,)), dict(drop=tuple(range(12))), dict(drop=(1, 1))],
)
def test_a_plan_validates_itself(plan):
    with pytest.raises(BadInput):
        Plan(
            **(dict(drop=(), tune=(), anchor=(), n_layers=12, strategy="by hand", ratio=0.1) | plan)
        )


def test_a_plan_is_immutable_and_round_trips(tmp_path):
    plan = make_plan(random_scores(36, 5), 0.25)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.drop = ()
    plan.to_json(tmp_path / "plan.json")
    assert Plan.from_json(tmp_path / "plan.json") == plan == Plan.from_json(plan.to_json())


def test_a_plan_draws_every_layer():
    plan = make_plan(random_scores(36, 5), 0.25)
    svg = plan._repr_svg_()
    for colour, n in (
        ("#d62728", 9),
        ("#17becf", 9),
        ("#1f4fd6", len(plan.anchor)),
        ("#b8b8b8", 18 - len(plan.anchor)),
    ):
        assert svg.count(f'rx="3" fill="{colour}"') == n


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "plan"}', '{"per_sample": 3}'])
def test_broken_files(text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    for kind in (Plan, LayerScores):
        with pytest.raises(BadInput, match="x.json"):
            kind.from_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    "field, value",
    [
        ("drop", [4.7]),
        ("drop", ["12"]),
        ("drop", [True]),
        ("tune", [None]),
        ("drop", "12"),
        ("n_layers", "12"),
        ("n_layers", 12.0),
        ("n_layers", True),
        ("n_layers", 0),
        ("ratio", "0.25"),
        ("ratio", None),
        ("ratio", 1.5),
        ("strategy", 3),
    ],
)
def test_a_plan_says_what_it_is(field, value, tmp_path):
    "A value that is not a layer is refused, and the error names the file"
    plan = dict(
        kind="plan", drop=[2], tune=[3], anchor=[4], n_layers=12, strategy="by hand", ratio=0.1
    )
    (tmp_path / "x.json").write_text(json.dumps(plan))
    Plan.from_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text(json.dumps(plan | {field: value}))
    with pytest.raises(BadInput, match="x.json"):
        Plan.from_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    "field, value",
    [
        ("n_layers", "4"),
        ("n_layers", 4.0),
        ("last", "no"),
        ("last", 0),
        ("per_sample", {"1": [["a", "b", "c"]], "2": [[0.1, 0.2]], "3": [[0.3]]}),
        ("per_sample", {"1": [[True, True, True]], "2": [[0.1, 0.2]], "3": [[0.3]]}),
        ("kind", "plan"),
    ],
)
def test_scores_say_what_they_are(field, value, tmp_path):
    scores = dict(
        kind="scores",
        n_layers=4,
        last=False,
        about={},
        per_sample={"1": [[0.9, 0.5, 0.7]], "2": [[0.6, 0.4]], "3": [[0.3]]},
    )
    (tmp_path / "x.json").write_text(json.dumps(scores))
    LayerScores.from_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text(json.dumps(scores | {field: value}))
    with pytest.raises(BadInput, match="x.json"):
        LayerScores.from_json(tmp_path / "x.json")


def test_one_kind_of_file_is_not_taken_for_another(tmp_path):
    Plan((2,), (3,), (4,), 12, "by hand", 0.1).to_json(tmp_path / "plan.json")
    with pytest.raises(BadInput, match="not a scores file, but of plan"):
        LayerScores.from_json(tmp_path / "plan.json")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_selection_does_linear_work(strategy):
    "Ten times the layers need ten times the operations, which are counted and not timed"
    counts = []
    for L in (1000, 10_000):
        scores = random_scores(L, 3)
        plan = make_plan(scores, 0.25, strategy)
        assert len(plan.drop) == L // 4
        lines = []

        def trace(frame, event, arg):
            if event == "line":
                lines.append(1)
            return trace

        sys.settrace(trace)
        try:
            STRATEGIES[strategy]({k: scores.similarity(k) for k in (1, 2, 3)}, L, L // 4, 42)
        finally:
            sys.settrace(None)
        counts.append(len(lines))
    assert counts[1] < 12 * max(counts[0], 100)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_protected_layers_stay_as_they_are(strategy):
    "The rule chooses among the others as if the decoder began there"
    rng = np.random.default_rng(5)
    arrays = {s: rng.uniform(0.5, 1, 20 - s) for s in (1, 2, 3)}
    scores = LayerScores.from_arrays(arrays, 20)
    plan = make_plan(scores, 0.2, strategy, protect=4)
    rest = LayerScores.from_arrays({s: a[4:] for s, a in arrays.items()}, 16)
    same = make_plan(rest, 0.25, strategy)
    assert plan.drop == tuple(i + 4 for i in same.drop)
    assert plan.tune == tuple(i + 4 for i in same.tune)
    for wrong in (-1, 20, 1.5, True):
        with pytest.raises(BadInput, match="protect"):
            make_plan(scores, 0.2, strategy, protect=wrong)

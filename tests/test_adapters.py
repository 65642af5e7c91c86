"""Adapters of a whole model, renumbered for the pruned one.

The chapter on adapters compares logits. Here are other names, fields and refusals.
"""

import json
import re
import shutil

import pytest
import torch
from conftest import command, tiny
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from interlace.core.errors import BadInput
from interlace.method.decoder import find_decoder
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
        config = dict(peft_type="LORA", r=2, lora_alpha=4, target_modules=["q_proj"]) | fields
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
    vision = "base_model.model.model.visual.blocks.1.attn.qkv.lora_A.weight"
    given = adapter([key(i, path) for i in range(36)] + [vision])
    assert renumber_adapter(given, pruned, tmp_path / "out") == dict(kept=35, left_out=2)
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    # an earlier path becomes the present one
    assert set(tensors) == {key(i) for i in range(34)} | {vision}
    for k, i in enumerate(PLAN.kept):
        assert tensors[key(k)][0, 0] == i
    assert tensors[vision][0, 0] == 36


def test_the_configuration_names_each_module(pruned, adapter, tmp_path):
    given = adapter(
        [key(i) for i in (0, 5, 6)],
        target_modules=r".*layers\.[0-6]\.self_attn\.q_proj",
        exclude_modules=r".*layers\.3\..*",
        layers_to_transform=[0, 5, 6],
        modules_to_save=["lm_head"],
        r=8,
        alpha_pattern={r"^model.language_model.layers.[5-6].self_attn.q_proj": 64},
    )
    renumber_adapter(given, pruned, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    names = [f"model.language_model.layers.{i}.self_attn.q_proj" for i in (0, 4)]
    assert config["target_modules"] == names
    assert config["rank_pattern"] == {re.escape(name): 2 for name in names}  # of the tensors
    assert config["alpha_pattern"] == {re.escape(names[1]): 64}  # of layer 6
    assert config["layers_to_transform"] is config["exclude_modules"] is None
    assert config["modules_to_save"] == ["lm_head"]
    assert config["base_model_name_or_path"] == str(pruned)
    with pytest.raises(BadInput, match="its base model .* is pruned already"):
        renumber_adapter(tmp_path / "out", pruned, tmp_path / "twice")


WHOLE = "base_model.model.model.language_model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("names", "fields", "said"),
    [
        ([key(36)], {}, "it changes layer 36, and the whole model has layers 0 to 35"),
        ([key(i) for i in range(34)], {}, "as an adapter of the pruned model does"),
        ([key(1), key(5)], {}, "all layers that it changes are dropped"),
        (["base_model.model.lm_head.lora_A.weight"], {}, "it changes no decoder layer"),
        ([key(0), WHOLE], {}, "it replaces .*up_proj.weight instead of adapting it"),
        ([key(0).replace("q_proj", "no_proj")], {}, "no_proj, which the model in .* does not have"),
        ([key(0)], dict(layer_replication=[[0, 4]]), "layer_replication .* cannot be renumbered"),
        ([key(0)], dict(target_parameters=["experts.w"]), "target_parameters .* cannot be renum"),
        ([key(0)], dict(peft_type="PREFIX_TUNING"), "not a LoRA adapter's configuration"),
        ([key(0)], dict(rank_pattern=["x"]), "rank_pattern"),
        ([key(0)], dict(r="8"), "r '8'"),
        ([key(0)], dict(alpha_pattern={"(": 4}), "alpha_pattern '\\('"),
    ],
)
def test_what_cannot_be_renumbered_is_refused(pruned, adapter, tmp_path, names, fields, said):
    with pytest.raises(BadInput, match=said):
        renumber_adapter(adapter(names, **fields), pruned, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda made: made.pop("plan"), "not a pruned file"),
        (lambda made: made.update(plan=None), "not a pruned file"),
        (lambda made: made["plan"].update(drop="15"), "drop names '1'"),
        (lambda made: made["plan"].update(drop=[1, 2, 5]), "its plan keeps 33 layers"),
        (lambda made: made.update(kind="training"), "training"),
    ],
)
def test_a_damaged_record_of_the_pruning_is_one_line(pruned, adapter, tmp_path, change, said):
    folder = tmp_path / "pruned"
    shutil.copytree(pruned, folder)
    made = json.loads((folder / "interlace.json").read_text())
    change(made)
    (folder / "interlace.json").write_text(json.dumps(made))
    with pytest.raises(BadInput, match=said) as e:
        renumber_adapter(adapter([key(0)]), folder, tmp_path / "out")
    assert "interlace.json" in str(e.value)


CHOICES = [
    dict(target_modules=["q_proj", "down_proj"]),
    dict(target_modules="all-linear", alpha_pattern={"layers.[2-3].self_attn.q_proj": 64}),
    dict(target_modules=["q_proj", "v_proj"], layers_to_transform=[0, 2, 3]),
    dict(target_modules=["layers.2.self_attn.q_proj"]),
    dict(target_modules=r".*\.[23]\.self_attn\.q_proj", rank_pattern={"layers.(2|3).*": 4}),
]


@pytest.mark.parametrize(
    ("family", "choice"),
    [("llama", c) for c in CHOICES] + [("gemma3", CHOICES[2]), ("qwen3-vl-moe", CHOICES[1])],
)
def test_the_renumbered_adapter_gives_what_merging_and_pruning_give(tmp_path, family, choice):
    model, inputs = tiny(family)
    how = dict(r=2, init_lora_weights=False) | choice
    model.save_pretrained(tmp_path / "whole")
    peft = get_peft_model(model, LoraConfig(**how))
    peft.save_pretrained(tmp_path / "adapter")
    L = len(find_decoder(model))
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
        gap = loaded.eval()(**inputs).logits - merged.eval()(**inputs).logits
    assert gap.abs().max() < 1e-3  # a wrong layer or scale makes 0.5 and more


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

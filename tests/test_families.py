"""Surgery on the families that people use, and on designs that tie layers to one another.

`make families` does the same for every class that transformers knows.
"""

import re

import pytest
import torch
from transformers import AutoModelForCausalLM

from interlace.baselines.sparsity import prune_2_4
from interlace.core.errors import BadInput
from interlace.method.decoder import find_decoder
from interlace.method.selection import Plan
from interlace.method.similarity import score_layers
from interlace.method.surgery import prune
from interlace.testing.families import (
    LAYERS,
    check_class,
    distance,
    image_inputs,
    logits,
    model_classes,
    skipped,
    sweep,
    text_inputs,
    tiny_config,
    tiny_model,
)

# others are in test_surgery
TEXT = ("GptOssForCausalLM", "Qwen3ForCausalLM")
IMAGES = (
    "InternVLForConditionalGeneration",
    "LlavaForConditionalGeneration",
    "Qwen3VLForConditionalGeneration",
)


def plan(*drop):
    return Plan(drop, (), (), LAYERS, "by hand", len(drop) / LAYERS)


PLAN = plan(1, 4, 7)


def config_of(name, **fields):
    "A tiny configuration of a class with changed fields"
    config = tiny_config(model_classes()[name]).get_text_config(decoder=True)
    for field, value in fields.items():
        setattr(config, field, value)
    return config


def off(model, chosen, inputs):
    "Prune a model and return its distance from the whole one with the dropped layers skipped"
    wanted = skipped(model, chosen, inputs)
    whole = logits(model, inputs)
    prune(model, chosen)
    assert distance(wanted, whole) > 0.1, "the dropped layers did something"
    return distance(wanted, logits(model, inputs))


@pytest.mark.parametrize("name", [*TEXT, *IMAGES])
def test_families_that_people_use(name):
    found = check_class(name, seed=2)
    assert found.verdict == "right" and found.images == (name in IMAGES), found


def test_a_sweep_survives_a_class_that_cannot_be_built():
    found = {o.name: o for o in sweep(["LlamaForCausalLM", "BlipForConditionalGeneration"])}
    assert found["LlamaForCausalLM"].verdict == "right"
    blip = found["BlipForConditionalGeneration"]
    assert blip.verdict == "not buildable" and blip.reason


def test_a_list_by_layer_counts_whatever_its_name():
    "Granite's rope frequencies differ from layer to layer"
    by_layer = [1e4 if i % 3 else 5e2 for i in range(LAYERS)]
    model = tiny_model(
        "GraniteSWAForCausalLM", config_of("GraniteSWAForCausalLM", layer_rope_theta=by_layer)
    )
    assert off(model, PLAN, text_inputs()) < 1e-4
    assert model.config.layer_rope_theta == [by_layer[i] for i in PLAN.kept]


@pytest.mark.parametrize("name", ["Gemma3nForCausalLM", "Gemma4ForCausalLM"])
def test_slices_by_layer_outside_the_layers_are_cut(name, tmp_path):
    "An embedding for each layer lies in one table next to the layers"
    model = tiny_model(name)
    table = next(p for n, p in model.named_parameters() if "embed_tokens_per_layer" in n)
    width = table.shape[1] // LAYERS
    assert off(model, PLAN, text_inputs()) < 1e-4
    cut = next(p for n, p in model.named_parameters() if "embed_tokens_per_layer" in n)
    assert cut.shape[1] == width * len(PLAN.kept)
    assert torch.equal(cut[:, width : 2 * width], table[:, 2 * width : 3 * width])
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert distance(logits(model, text_inputs()), logits(again, text_inputs())) < 1e-4


def test_layer_numbers_on_the_parent_are_renumbered():
    "mllama keeps the numbers of its cross-attention layers on the text model, too"
    model = prune(tiny_model("MllamaForConditionalGeneration"), PLAN)
    text = find_decoder(model).parent
    numbers = find_decoder(model).config.cross_attention_layers
    crossing = [i for i, layer in enumerate(text.layers) if "Cross" in type(layer).__name__]
    assert numbers == text.cross_attention_layers == crossing and crossing


def test_features_enter_before_the_same_layer():
    "Granite 4 Vision lists these layers outside the text configuration"
    name = "Granite4VisionForConditionalGeneration"
    model = tiny_model(name)
    inputs = image_inputs(model)
    assert "pixel_values" in inputs and off(model, plan(3, 7), inputs) < 1e-4
    assert model.config.spatial_target_layers == [2, 4, 6, 8]  # 2, 5, 7, 10 before
    with pytest.raises(BadInput, match="layers 1 and 2 would enter at one place"):
        prune(tiny_model(name), plan(1))


def test_a_layer_that_others_use_has_to_stay():
    name, types = "GlmMoeDsaForCausalLM", ["full", "shared", "shared"] * 4

    def made():
        return tiny_model(name, config_of(name, index_topk=4, indexer_types=types))

    assert off(made(), plan(4), text_inputs()) < 1e-4
    model = made()
    before = logits(model, text_inputs())
    with pytest.raises(BadInput, match=r"layer 4 uses what layer 3 computes \(indexer_types\)"):
        prune(model, plan(3))
    assert torch.equal(logits(model, text_inputs()), before)


@pytest.mark.parametrize(
    "take, said",
    [
        (lambda left: left.pop("out"), "without these layers it does not run"),
        (lambda left: left.pop("out", 0), "skipped; another part reads what they compute"),
    ],
)
def test_a_tie_that_no_field_shows_is_noticed(take, said):
    "Layer 5 adds what layer 4 left behind; the model is refused and stays whole"
    model, left = tiny_model("LlamaForCausalLM"), {}
    layers = find_decoder(model).layers
    layers[4].register_forward_hook(lambda m, a, out: left.update(out=out))
    layers[5].register_forward_hook(lambda m, a, out: out + take(left))
    before = logits(model, text_inputs())
    with pytest.raises(BadInput, match=said):
        prune(model, plan(4))
    assert len(find_decoder(model)) == LAYERS == model.config.num_hidden_layers
    left.clear()
    assert torch.equal(logits(model, text_inputs()), before)


@pytest.mark.parametrize(
    "name, said",
    [
        ("BeamForCausalLM", "counts the layers before it (attn_residual_add_idx, mlp_"),
        ("RwkvForCausalLM", "the code around the layers counts them (rescale_every)"),
        ("XLMWithLMHeadModel", "has its parts in attentions, layer_norm1, ffns, layer_norm2"),
        ("ZayaForCausalLM", "what the one before it computes (prev_router_hidden_states)"),
    ],
)
def test_a_refusal_names_what_ties_the_layers(name, said):
    model = tiny_model(name)
    with pytest.raises(BadInput, match=f"skipped.*{re.escape(said)}.*; drop others"):
        prune(model, PLAN)
    assert type(model.config).__name__ == f"{name.split('For')[0].split('With')[0]}Config"


@pytest.mark.parametrize(
    "name", ["MiniMaxForCausalLM", "GPTNeoXJapaneseForCausalLM", "MiniCPM3ForCausalLM"]
)
def test_attributes_that_only_count_refuse_nothing(name):
    assert off(tiny_model(name), PLAN, text_inputs()) < 1e-4


def test_all_layers_sparse_is_a_list_of_numbers():
    "Llama 4's `moe_layers` then has one entry per layer, and they are layer numbers all the same"
    model = tiny_model(
        "Llama4ForCausalLM", config_of("Llama4ForCausalLM", moe_layers=list(range(LAYERS)))
    )
    assert off(model, PLAN, text_inputs()) < 1e-4
    assert model.config.moe_layers == list(range(len(PLAN.kept)))


def test_settings_by_layer_number_are_renumbered():
    model = tiny_model("Gemma4ForCausalLM")
    before = model.config.to_dict()["per_layer_config"]
    prune(model, PLAN)
    after = model.config.to_dict()["per_layer_config"]
    numbers = {PLAN.kept.index(int(k)) for k in before if int(k) in PLAN.kept}
    assert {int(k) for k in after} == numbers and numbers


def test_scores_of_several_streams_are_those_of_the_active_one():
    scores = score_layers(tiny_model("Gemma3nForCausalLM"), [text_inputs()], progress=False)
    s1 = scores.similarity(1)
    assert len(s1) == LAYERS - 1 and (s1 < 1).all() and (s1 > -1).all()


def test_layers_that_do_not_run_are_named():
    "On text alone, mllama's cross-attention layers are passed by"
    with pytest.raises(BadInput, match="layer 3 does not run on these samples.*with images"):
        score_layers(tiny_model("MllamaForConditionalGeneration"), [text_inputs()], progress=False)


def test_two_of_four_reaches_what_it_claims():
    model = tiny_model("Qwen3VLMoeForConditionalGeneration")
    with pytest.raises(BadInput, match="experts.*outside its linear modules"):
        prune_2_4(model, [text_inputs()], "magnitude", progress=False)
    assert not any((p == 0).float().mean() > 0.1 for p in find_decoder(model).layers.parameters())


@pytest.mark.parametrize(
    "wrap, said",
    [
        (torch.compile, "it is compiled; prune the model inside"),
        (lambda m: setattr(m, "peft_config", dict(default=1)) or m, "adapter; merge it"),
    ],
)
def test_what_has_to_come_off_first_is_said(wrap, said):
    model = wrap(tiny_model("LlamaForCausalLM"))
    with pytest.raises(BadInput, match=said):
        prune(model, PLAN)
    assert len(find_decoder(model)) == LAYERS


@pytest.mark.parametrize("name", ["BartForCausalLM", "ProphetNetForCausalLM"])
def test_a_decoder_that_was_half_of_a_model_has_its_own_depth(name):
    "Its configuration counts the encoder's layers, too, under the usual name"
    assert check_class(name, seed=2).verdict == "right"


def test_an_image_is_asked_about_too(monkeypatch):
    "Text does not show whether visual features enter as before"
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

    add = Qwen3VLTextModel._deepstack_process

    def scaled(self, states, places, features):
        return add(self, states, places, features * len(self.layers))

    monkeypatch.setattr(Qwen3VLTextModel, "_deepstack_process", scaled)
    model = tiny_model("Qwen3VLForConditionalGeneration")
    inputs = image_inputs(model)
    before = logits(model, inputs)
    with pytest.raises(BadInput, match="its answers about an image are not those"):
        prune(model, plan(4, 7))
    assert torch.equal(logits(model, inputs), before)


def test_a_picture_that_takes_long_is_not_asked_about():
    model = tiny_model("Qwen3VLForConditionalGeneration")
    assert image_inputs(model) and image_inputs(model, most=1e5) is None


def test_wrapped_and_offloaded_models_are_named(tmp_path):
    from accelerate import disk_offload

    model = tiny_model("LlamaForCausalLM")
    with pytest.raises(BadInput, match="wraps a model, prune that one"):
        prune(torch.nn.DataParallel(model), PLAN)
    with pytest.raises(BadInput, match="on disk or offloaded; load it without"):
        prune(disk_offload(model, tmp_path, execution_device="cpu"), PLAN)


def test_weights_that_are_spread_over_processes_are_named():
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = tiny_model("LlamaForCausalLM")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(BadInput, match="spread over several processes; prune first"):
            prune(model, PLAN)
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["OpenAIGPTLMHeadModel", "XLNetLMHeadModel"])
def test_layers_that_do_not_know_their_place_are_a_decoder_too(name):
    "They have no cache by place; a layer of the first gives a list, not a tuple"
    assert check_class(name, seed=2).verdict == "right"

"""For every model family: dropped = skipped, reloaded = in memory, cached = uncached.

A model that is refused stays unchanged.
"""

import copy

import pytest
import torch
from conftest import TEXT, L, tiny
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from interlace.core.errors import BadInput
from interlace.method.decoder import find_decoder, places
from interlace.method.selection import Plan
from interlace.method.surgery import freeze_for, prune, pruned_settings

PLAN = Plan(drop=(4, 6), tune=(5, 7), anchor=(), n_layers=L, strategy="by hand", ratio=0.25)
EARLY = Plan(drop=(1, 4), tune=(2, 5), anchor=(3, 6), n_layers=L, strategy="by hand", ratio=0.25)


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


def skip(layer):
    "Make a layer return its input, in the form of its usual output"
    usual = layer.forward

    def forward(hidden_states, *args, **kwargs):
        out = usual(hidden_states, *args, **kwargs)
        return (hidden_states, *out[1:]) if isinstance(out, tuple) else hidden_states

    layer.forward = forward


def test_dropped_is_skipped(family):
    whole, inputs = tiny(family)
    before = logits(whole, inputs)
    pruned = prune(copy.deepcopy(whole), PLAN)
    for i in PLAN.drop:
        skip(find_decoder(whole).layers[i])
    assert torch.equal(logits(whole, inputs), logits(pruned, inputs))
    assert not torch.allclose(
        before, logits(pruned, inputs), atol=1e-3
    )  # the dropped layers did something


@pytest.mark.parametrize("plan", [PLAN, EARLY], ids=["late", "early"])
def test_reloaded_equals_in_memory(family, plan, tmp_path):
    model, inputs = tiny(family)
    prune(model, plan)
    model.save_pretrained(tmp_path)
    loader = AutoModelForCausalLM if family == "llama" else AutoModelForImageTextToText
    again, info = loader.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation=model.config._attn_implementation
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert torch.equal(logits(model, inputs), logits(again.eval(), inputs))


def test_cached_generation_equals_uncached(family, tmp_path):
    model, inputs = tiny(family)
    prune(model, EARLY)
    model.save_pretrained(tmp_path)
    loader = AutoModelForCausalLM if family == "llama" else AutoModelForImageTextToText
    for m in (model, loader.from_pretrained(tmp_path).eval()):
        said = {
            cache: m.generate(**inputs, max_new_tokens=8, do_sample=False, use_cache=cache)
            for cache in (True, False)
        }
        assert torch.equal(said[True], said[False])


def test_every_module_knows_its_new_place(family):
    model, _ = tiny(family)
    prune(model, EARLY)
    layers = find_decoder(model).layers
    assert len(layers) == L - 2
    for i, layer in enumerate(layers):
        assert {v for _, _, v in places(layer)} == {i}
    text = model.config.get_text_config(decoder=True)
    assert text.num_hidden_layers == L - 2
    if getattr(text, "layer_types", None):
        assert len(text.layer_types) == L - 2


def test_fields_that_list_layers_by_number_are_renumbered():
    model, _ = tiny("qwen3-vl-moe")
    assert pruned_settings(find_decoder(model).config, EARLY)["mlp_only_layers"] == [
        2,
        3,
    ]  # 3, 5 before
    prune(model, EARLY)
    assert [
        type(layer.mlp).__name__.endswith("SparseMoeBlock") for layer in find_decoder(model).layers
    ] == [True, True, False, False, True, True]


def test_thresholds_count_kept_layers():
    model, _ = tiny("qwen2.5-vl")
    config = find_decoder(model).config
    types = list(config.layer_types)
    prune(model, EARLY)
    assert config.max_window_layers == 3 and config.layer_types == [types[i] for i in EARLY.kept]


def test_tied_embeddings_stay_tied():
    model, _ = tiny("qwen3-vl")
    prune(model, PLAN)
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight


def test_deepstack_enters_by_position():
    "After layer 1 is dropped, the features enter after the original layers 0, 2 and 3"
    model, inputs = tiny("qwen3-vl")
    prune(model, EARLY)
    seen = []
    for layer in find_decoder(model).layers:
        layer.register_forward_hook(lambda m, a, o: seen.append(o.clone()))
    enters = []
    for layer in find_decoder(model).layers:
        layer.register_forward_pre_hook(
            lambda m, a, k: enters.append((a[0] if a else k["hidden_states"]).clone()),
            with_kwargs=True,
        )
    logits(model, inputs)
    visual = inputs["input_ids"] == 90
    added = [not torch.equal(seen[i][visual], enters[i + 1][visual]) for i in range(5)]
    assert added == [True, True, True, False, False]


def test_only_tuned_layers_require_gradients(family):
    model, _ = tiny(family)
    freeze_for(prune(model, EARLY), EARLY)
    for i, layer in enumerate(find_decoder(model).layers):
        assert all(p.requires_grad == (EARLY.kept[i] in EARLY.tune) for p in layer.parameters())
    inside = {id(p) for layer in find_decoder(model).layers for p in layer.parameters()}
    assert not any(p.requires_grad for p in model.parameters() if id(p) not in inside)


def refused(model, plan, why):
    before = copy.deepcopy(model.config.to_dict()), len(find_decoder(model))
    with pytest.raises(BadInput, match=why):
        prune(model, plan)
    assert (model.config.to_dict(), len(find_decoder(model))) == before


def test_a_plan_of_another_model_is_refused():
    refused(
        tiny("llama")[0],
        Plan((1,), (2,), (), 12, "by hand", 0.1),
        "12 layers and this decoder has 8",
    )


def test_a_second_cut_by_the_same_plan_is_refused():
    model = prune(tiny("llama")[0], PLAN)
    refused(model, PLAN, "8 layers and this decoder has 6")


def test_a_pattern_that_would_shift_is_refused():
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    model = Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            **TEXT,
            head_dim=8,
            moe_intermediate_size=16,
            num_experts=4,
            num_experts_per_tok=2,
            decoder_sparse_step=2,
        )
    )
    refused(model, EARLY, "would come back as layer")


def test_shared_weights_are_refused():
    model, _ = tiny("llama")
    layers = find_decoder(model).layers
    layers[4].mlp.up_proj.weight = layers[5].mlp.up_proj.weight
    refused(model, PLAN, "layer 4 shares weights")
    prune(model, Plan((1,), (2,), (), L, "by hand", 0.125))  # layers that stay may share


def test_quantised_weights_are_refused():
    model, _ = tiny("llama")
    model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    with pytest.raises(BadInput, match="quantised"):
        prune(model, PLAN)
    assert len(find_decoder(model)) == L


def test_shared_keys_and_values_are_refused():
    model, _ = tiny("llama")
    model.config.num_kv_shared_layers = 2
    refused(model, PLAN, "num_kv_shared_layers")


def test_fewer_layers_than_deepstack_features_is_refused():
    model, _ = tiny("qwen3-vl")
    refused(model, Plan((0, 1, 2, 3, 4, 5), (), (), L, "by hand", 0.75), "DeepStack")


def test_an_encoder_decoder_is_refused():
    from transformers import T5Config, T5ForConditionalGeneration

    model = T5ForConditionalGeneration(
        T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    )
    with pytest.raises(BadInput, match="encoder-decoder"):
        find_decoder(model)

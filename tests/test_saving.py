"""A saved folder is what stock transformers writes, with older spellings beside the new ones."""

import json
import logging

import pytest
import torch
from conftest import tiny
from transformers import AutoConfig

from interlace.method.saving import save, spell_for_engines


@pytest.fixture
def warnings(caplog):
    "What transformers logs as a warning, or worse"
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield lambda: [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    logger.removeHandler(caplog.handler)


class NoProcessor:
    def save_pretrained(self, folder):
        pass


def test_the_folder_is_the_stock_one_in_both_spellings(family, tmp_path, warnings):
    model, _ = tiny(family)
    model.save_pretrained(tmp_path / "stock")
    save(model, NoProcessor(), tmp_path / "ours")
    for file in (tmp_path / "stock").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "ours" / file.name).read_bytes()
    ours, stock = (
        AutoConfig.from_pretrained(tmp_path / name).to_dict() for name in ("ours", "stock")
    )
    for config in (ours, stock):
        config.pop("_name_or_path")
    if "text_config" in stock:  # the tie is the whole model's
        stock["text_config"]["tie_word_embeddings"] = stock["tie_word_embeddings"]
    assert ours == stock
    type(model).from_pretrained(tmp_path / "stock")
    usual = set(warnings())
    loaded = type(model).from_pretrained(tmp_path / "ours")
    assert all(
        torch.equal(p, q)
        for p, q in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    assert set(warnings()) == usual


def test_old_spellings_say_the_same():
    rope = dict(rope_type="default", rope_theta=5e6, mrope_section=[24, 20, 20])
    config = dict(
        dtype="bfloat16",
        tie_word_embeddings=False,
        text_config=dict(rope_parameters=dict(rope)),
        vision_config=dict(model_type="qwen3_vl_vision"),
    )
    text = spell_for_engines(config)["text_config"]
    assert text["rope_parameters"] == rope and text["rope_theta"] == 5e6
    assert text["rope_scaling"] == dict(rope_type="default", mrope_section=[24, 20, 20])
    assert text["tie_word_embeddings"] is False and config["torch_dtype"] == "bfloat16"
    assert config["vision_config"]["model_type"] == "qwen3_vl"
    plain = dict(rope_parameters=dict(rope_type="default", rope_theta=1e4))
    assert spell_for_engines(plain)["rope_scaling"] is None
    assert spell_for_engines(dict(vision_config=None, text_config=None)) is not None
    by_layer = dict(rope_parameters=dict(full_attention=dict(rope)))
    assert set(spell_for_engines(json.loads(json.dumps(by_layer)))) == {"rope_parameters"}

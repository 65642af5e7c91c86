"""Conversations of every shape: text only, several pictures, a text model's tokenizer, both padding sides."""
import pytest
from PIL import Image
from interlace.conversations import IGNORE, Collator, calibration_batches, load_samples, open_image, to_messages
from interlace.nano_model import TEMPLATE, nano_processor, nano_tokenizer
from interlace.nano_world import conversation
from interlace.project import BadInput

TURNS = [dict(user="What is this?", assistant="red circle"), dict(user="And where?", assistant="top left"), dict(user="Sure?", assistant="yes")]


@pytest.fixture(scope="module")
def processor(): return nano_processor()


def said(processor, labels): return getattr(processor, "tokenizer", processor).decode(labels[labels != IGNORE])


def picture(colour="red"): return Image.new("RGB", (64, 64), colour)


def test_text_only_and_several_pictures_in_one_batch(processor):
    samples = [dict(images=[], texts=TURNS), dict(images=[picture()], texts=TURNS[:1]), dict(images=[picture(), picture("blue"), picture("green")], texts=TURNS[:2])]
    batch = Collator(processor, 10)(samples)
    visual = (batch["input_ids"] == processor.image_token_id).sum(1).tolist()
    assert visual == [0, 16, 48] and batch["image_grid_thw"].shape == (4, 3)
    for b, s in enumerate(samples): assert said(processor, batch["labels"][b]) == "".join(t["assistant"] + "<|im_end|>" for t in s["texts"])


def test_a_batch_without_any_picture(processor):
    batch = Collator(processor, 10)([dict(images=[], texts=TURNS), dict(images=[], texts=TURNS[:1])])
    assert "pixel_values" not in batch and said(processor, batch["labels"][1]) == "red circle<|im_end|>"


def test_a_text_model_has_a_tokenizer_only():
    tokenizer = nano_tokenizer()
    tokenizer.chat_template = TEMPLATE
    samples = [dict(images=[], texts=TURNS), dict(images=[], texts=TURNS[:1])]
    batch = Collator(tokenizer, 10)(samples)
    assert said(tokenizer, batch["labels"][0]) == "red circle<|im_end|>top left<|im_end|>yes<|im_end|>"
    prompts = list(calibration_batches(samples, tokenizer))
    assert tokenizer.decode(prompts[0]["input_ids"][1]).endswith("<|im_start|>assistant\n")


def test_five_messages_are_two_answered_turns():
    messages = to_messages(TURNS, 1, max_messages=5)
    assert [m["role"] for m in messages] == ["user", "assistant"]*2 and messages[0]["content"][0] == {"type": "image"} and len(messages[2]["content"]) == 1


def test_a_template_that_rewrites_history_is_refused(processor):
    import copy
    other = copy.deepcopy(processor)
    other.chat_template = "{{ messages | length }}" + TEMPLATE
    with pytest.raises(BadInput, match="incremental"): Collator(other, 10)([dict(images=[], texts=TURNS)])


def test_more_than_three_pictures_are_skipped(tmp_path):
    from datasets import Dataset, Image as Picture, List
    rows = [dict(images=[picture()]*n, texts=TURNS) for n in (1, 3, 4)]
    Dataset.from_list(rows).cast_column("images", List(Picture())).to_parquet(str(tmp_path/"d.parquet"))
    assert [len(s["images"]) for s in load_samples(tmp_path/"d.parquet")] == [1, 3]


def test_files_that_are_none(tmp_path):
    with pytest.raises(BadInput, match="no such file"): load_samples(tmp_path/"none.parquet")
    import pandas as pd
    pd.DataFrame({"texts": [[]]}).to_parquet(tmp_path/"d.parquet")
    with pytest.raises(BadInput, match="column 'images' is missing"): load_samples(tmp_path/"d.parquet")


@pytest.mark.parametrize("image", [b"", b"GIF89a half", dict(bytes=b"x", path=None), dict(bytes=None, path="nowhere.png")])
def test_broken_pictures_are_named(image):
    with pytest.raises(BadInput, match="row 7: the image cannot be decoded"): open_image(image, "row 7")


def test_calibration_prompts_hold_no_answer(processor):
    samples = [conversation("objects", "calibration", i) for i in range(3)]
    batch = list(calibration_batches(samples, processor, 2))
    assert [len(b["input_ids"]) for b in batch] == [2, 1]
    for b in batch:
        for row in b["input_ids"]:
            text = processor.tokenizer.decode(row)
            assert text.endswith("<|im_start|>assistant\n") and text.count("<|im_start|>user") == 1
    assert (batch[0]["attention_mask"][:, -1] == 1).all()                     # padded on the left

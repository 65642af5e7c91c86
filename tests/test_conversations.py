"""Conversations: text only, several images, a text model's tokenizer, both padding sides."""

import io

import numpy as np
import pytest
from PIL import Image

from interlace.core.errors import BadInput
from interlace.data.conversations import (
    IGNORE,
    Collator,
    calibration_batches,
    fitting,
    load_samples,
    open_image,
    read_row,
    to_messages,
)
from interlace.nano.model import TEMPLATE, nano_processor, nano_tokenizer
from interlace.nano.samples import conversation

MESSAGES = [dict(role="user", content="What?"), dict(role="assistant", content="A square.")]
TURNS = [
    dict(user="What is this?", assistant="red circle"),
    dict(user="And where?", assistant="top left"),
    dict(user="Sure?", assistant="yes"),
]


@pytest.fixture(scope="module")
def processor():
    return nano_processor()


def said(processor, labels):
    return getattr(processor, "tokenizer", processor).decode(labels[labels != IGNORE])


def picture(colour="red"):
    return Image.new("RGB", (64, 64), colour)


def test_text_only_and_several_pictures_in_one_batch(processor):
    samples = [
        dict(images=[], texts=TURNS),
        dict(images=[picture()], texts=TURNS[:1]),
        dict(images=[picture(), picture("blue"), picture("green")], texts=TURNS[:2]),
    ]
    batch = Collator(processor, 5)(samples)
    visual = (batch["input_ids"] == processor.image_token_id).sum(1).tolist()
    assert visual == [0, 16, 48] and batch["image_grid_thw"].shape == (4, 3)
    for b, s in enumerate(samples):
        assert said(processor, batch["labels"][b]) == "".join(
            t["assistant"] + "<|im_end|>" for t in s["texts"]
        )


def test_a_batch_without_any_picture(processor):
    batch = Collator(processor, 5)([dict(images=[], texts=TURNS), dict(images=[], texts=TURNS[:1])])
    assert (
        "pixel_values" not in batch
        and said(processor, batch["labels"][1]) == "red circle<|im_end|>"
    )


def test_a_text_model_has_a_tokenizer_only():
    tokenizer = nano_tokenizer()
    tokenizer.chat_template = TEMPLATE
    samples = [dict(images=[], texts=TURNS), dict(images=[], texts=TURNS[:1])]
    batch = Collator(tokenizer, 5)(samples)
    assert (
        said(tokenizer, batch["labels"][0]) == "red circle<|im_end|>top left<|im_end|>yes<|im_end|>"
    )
    prompts = list(calibration_batches(samples, tokenizer))
    assert tokenizer.decode(prompts[0]["input_ids"][1]).endswith("<|im_start|>assistant\n")


def test_turns_are_cut():
    messages = to_messages(TURNS, 1, turns=2)
    assert (
        [m["role"] for m in messages] == ["user", "assistant"] * 2
        and messages[0]["content"][0] == {"type": "image"}
        and len(messages[2]["content"]) == 1
    )


def test_a_template_that_rewrites_history_is_refused(processor):
    import copy

    other = copy.deepcopy(processor)
    other.chat_template = "{{ messages | length }}" + TEMPLATE
    with pytest.raises(BadInput, match="incremental"):
        Collator(other, 5)([dict(images=[], texts=TURNS)])


def test_more_than_three_pictures_are_skipped(tmp_path):
    from datasets import Dataset, Image as Picture, List

    rows = [dict(images=[picture()] * n, texts=TURNS) for n in (1, 3, 4)]
    Dataset.from_list(rows).cast_column("images", List(Picture())).to_parquet(
        str(tmp_path / "d.parquet")
    )
    assert [len(s["images"]) for s in load_samples(tmp_path / "d.parquet")] == [1, 3]


def test_a_file_may_be_called_like_a_pattern(tmp_path):
    from datasets import Dataset

    folder = tmp_path / "mine[1]"
    folder.mkdir()
    for i, name in enumerate(("what?.parquet", "all*.parquet", "a[b]c.parquet", "allmine.parquet")):
        rows = [dict(images=[dict(bytes=stored(picture()), path=None)], texts=TURNS)] * (i + 1)
        Dataset.from_list(rows).to_parquet(str(folder / name))
        assert len(load_samples(folder / name)) == i + 1
    assert len(load_samples(folder)) == 10


def test_a_column_may_hold_the_image_itself_as_a_plain_struct(tmp_path):
    from datasets import Dataset

    rows = [dict(image=dict(bytes=stored(picture()), path=None), messages=MESSAGES)] * 2
    Dataset.from_list(rows).to_parquet(str(tmp_path / "d.parquet"))
    (image,) = read_row(load_samples(tmp_path / "d.parquet")[1])["images"]
    assert open_image(image).getpixel((5, 5)) == (255, 0, 0)


def test_files_that_are_none(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        load_samples(tmp_path / "none.parquet")
    import pandas as pd

    pd.DataFrame({"texts": [[]]}).to_parquet(tmp_path / "d.parquet")
    with pytest.raises(BadInput, match="column 'images' is missing"):
        load_samples(tmp_path / "d.parquet")


@pytest.mark.parametrize(
    "image",
    [b"", b"GIF89a half", dict(bytes=b"x", path=None), dict(bytes=None, path="nowhere.png")],
)
def test_broken_pictures_are_named(image):
    with pytest.raises(BadInput, match="row 7: the image cannot be decoded"):
        open_image(image, "row 7")


# padded on the left
def test_calibration_prompts_hold_no_answer(processor):
    samples = [conversation("objects", "calibration", i) for i in range(3)]
    batch = list(calibration_batches(samples, processor, 2))
    assert [len(b["input_ids"]) for b in batch] == [2, 1]
    for b in batch:
        for row in b["input_ids"]:
            text = processor.tokenizer.decode(row)
            assert text.endswith("<|im_start|>assistant\n") and text.count("<|im_start|>user") == 1
    assert (batch[0]["attention_mask"][:, -1] == 1).all()


def stored(image, kind="PNG", **options):
    "An image as a file stores it"
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_photo_is_upright_whatever_its_exif_says(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    photo = Image.new("RGB", (60, 30), "white")
    seen = open_image(stored(photo, "JPEG", exif=exif))
    assert seen.size == ((30, 60) if turn >= 5 else (60, 30)) and seen.getexif().get(0x0112) in (
        None,
        1,
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode):
    "A black square stays black on white, as in Qwen's own preprocessing, also with a palette"
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (10, 10, 30, 30))
    seen = open_image(stored(image.convert(mode)))
    assert seen.mode == "RGB" and "transparency" not in seen.info
    assert seen.getpixel((0, 0)) == (255, 255, 255) and seen.getpixel((20, 20)) == (0, 0, 0)


def test_half_transparent_is_mixed_with_white():
    assert open_image(stored(Image.new("RGBA", (4, 4), (0, 0, 0, 128)))).getpixel((0, 0)) == (
        127,
        127,
        127,
    )


def test_a_color_declared_transparent_is_white():
    image = Image.new("RGB", (4, 4), (10, 20, 30))
    image.putpixel((1, 1), (0, 200, 0))
    seen = open_image(stored(image, transparency=(10, 20, 30)))
    assert (
        seen.getpixel((0, 0)) == (255, 255, 255)
        and seen.getpixel((1, 1)) == (0, 200, 0)
        and "transparency" not in seen.info
    )


@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_sixteen_bits_keep_their_ramp(dtype):
    values = (np.linspace(0, 1, 4096).reshape(64, 64) * 65535).astype(dtype)
    seen = np.asarray(open_image(Image.fromarray(values)))[..., 0]
    assert len(np.unique(seen)) == 256 and seen[0, 0] == 0 and seen[-1, -1] == 255


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(0, 1, 16, dtype="float32").reshape(4, 4),
        np.full((4, 4), 10**6, dtype="int32"),
        np.full((4, 4), -1, dtype="int32"),
    ],
)
def test_values_without_an_agreed_range_are_refused(values):
    with pytest.raises(BadInput, match="row 7: the image cannot be decoded.*no agreed range"):
        open_image(Image.fromarray(values), "row 7")


@pytest.mark.parametrize(
    "mode, color", [("CMYK", (0, 255, 255, 0)), ("L", 128), ("1", 1), ("YCbCr", (128, 128, 128))]
)
def test_other_modes_are_converted(mode, color):
    image = Image.new(mode, (4, 4), color)
    assert open_image(image).getpixel((0, 0)) == image.convert("RGB").getpixel((0, 0))


ROW = dict(
    id="r",
    images=[dict(bytes=stored(picture()), path=None)],
    texts=[dict(user="What is it?", assistant="a square")],
)


@pytest.mark.parametrize(
    "row",
    [
        dict(
            images=ROW["images"],
            texts=[
                dict(role="user", content="What is it?"),
                dict(role="assistant", content="a square"),
            ],
        ),
        dict(
            images=ROW["images"],
            messages=[
                dict(
                    role="user", content=[dict(type="image"), dict(type="text", text="What is it?")]
                ),
                dict(role="assistant", content="a square"),
            ],
        ),
        dict(
            image=ROW["images"][0],
            conversations=[
                {"from": "human", "value": "<image>\nWhat is it?"},
                {"from": "gpt", "value": "a square"},
            ],
        ),
    ],
)
def test_rows_in_the_usual_forms_train_alike(row, processor):
    collate = Collator(processor)
    want, got = collate([ROW]), collate([row])
    assert all((want[k] == got[k]).all() for k in ("input_ids", "labels", "pixel_values"))


def test_a_system_message_is_said_first_and_not_learnt(processor):
    row = dict(
        images=None,
        messages=[
            dict(role="system", content="Be brief."),
            dict(role="user", content="What?"),
            dict(role="assistant", content="yes"),
        ],
    )
    batch = Collator(processor)([row])
    assert (
        processor.tokenizer.decode(batch["input_ids"][0]).startswith(
            "<|im_start|>system\nBe brief."
        )
        and said(processor, batch["labels"]) == "yes<|im_end|>"
    )


GAPS = dict(
    texts_empty=dict(texts=[]),
    texts_null=dict(texts=None),
    user_null=dict(texts=[dict(user=None, assistant="x")]),
    answer_null=dict(texts=[dict(user="hi", assistant=None)]),
    answer_blank=dict(texts=[dict(user="hi", assistant=" ")]),
    text=dict(texts="hi"),
    two_users=dict(texts=[dict(role="user", content="a")] * 2),
    other_role=dict(texts=[dict(role="tool", content="a")]),
    token=dict(texts=[dict(user="What does <|image_pad|> mean?", assistant="a placeholder")]),
)


@pytest.mark.parametrize("gap", GAPS)
def test_a_row_with_a_gap_is_left_out_by_name(gap, processor):
    rows = [ROW | dict(id=f"r{i}") for i in range(30)] + [ROW | dict(id="bad") | GAPS[gap]]
    kept, left_out = fitting(rows, processor)
    assert len(kept) == 30 and len(left_out) == 1 and left_out[0].startswith("bad: ")
    if gap != "token":
        with pytest.raises(BadInput, match="bad: "):
            Collator(processor)([rows[-1]])


@pytest.mark.parametrize("name", [dict(id="cut"), {}, dict(id=None)])
def test_an_image_that_breaks_off_is_named(name, processor):
    rows = [ROW | dict(id=f"r{i}") for i in range(20)]
    rows[3] = ROW | dict(texts=[], id="left out")
    broken = dict(bytes=stored(picture())[:30], path=None)
    rows.append({k: v for k, v in ROW.items() if k != "id"} | dict(images=[broken]) | name)
    with pytest.raises(BadInput, match=f"{name.get('id') or 'row 20'}: the image cannot be dec"):
        fitting(rows, processor)


def test_a_row_without_an_id_is_named_by_its_number(processor):
    rows = [dict(images=[], texts=TURNS[:1]) for _ in range(20)]
    rows[3] = dict(images=[], texts=[])
    rows[7] = dict(images=[], texts=[dict(user="word " * 200, assistant="yes")])
    kept, left_out = fitting(rows, processor, max_length=100)
    assert (len(kept), left_out) == (18, ["row 3: no conversation", "row 7"])


def test_null_images_are_no_images(processor):
    kept, left_out = fitting([ROW | dict(images=None)], processor)
    assert len(kept) == 1 and not left_out and "pixel_values" not in Collator(processor)(kept)


def test_too_many_flaws_are_refused(processor):
    rows = [ROW] * 20 + [ROW | dict(id=f"bad{i}", texts=[]) for i in range(11)]
    with pytest.raises(
        BadInput, match="11 of 31 rows cannot be read, the first is bad0: no conversation"
    ):
        fitting(rows, processor)


def test_what_the_processor_refuses_is_left_out(processor):
    thin = ROW | dict(id="thin", images=[dict(bytes=stored(Image.new("RGB", (900, 3))), path=None)])
    kept, left_out = fitting([ROW] * 5 + [thin], processor)
    assert len(kept) == 5 and left_out[0].startswith("thin: the processor refuses it")


def test_a_tokenizer_without_a_pad_token_pads(processor):
    tokenizer = nano_tokenizer()
    tokenizer.chat_template, tokenizer.pad_token = TEMPLATE, None
    rows = [dict(images=[], texts=[dict(user="say " + "a" * k, assistant="b")]) for k in (1, 9)]
    batch = Collator(tokenizer)(rows)
    assert (
        batch["input_ids"].shape[0] == 2
        and batch["attention_mask"].sum(1).tolist()
        == sorted(batch["attention_mask"].sum(1).tolist())
        and tokenizer.pad_token is None
    )


@pytest.mark.parametrize(
    "template, why",
    [
        (None, "has no chat template"),
        ("{{ raise_exception('Only text') }}", "refuses these messages .Only text"),
        ("{% for %}", "refuses these messages"),
    ],
)
def test_a_template_that_cannot_be_used(template, why):
    tokenizer = nano_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(BadInput, match=why):
        Collator(tokenizer)([dict(images=[], texts=[dict(user="a", assistant="b")])])

"""A pruned model's folder, and the ways to name, load and upload a model.

Stock classes load the folder, its card agrees with the records, and its recipe makes the same
weights. The folder is written completely or not at all. The tests also cover the failures of
naming, loading and uploading.
"""

import ast
import contextlib
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import torch
import yaml
from conftest import L, command, tiny
from datasets import Dataset, Features, Image as Picture, List, Value
from huggingface_hub import ModelCard, errors as hub
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Idefics3ImageProcessor,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)

from interlace.core.errors import BadInput
from interlace.method.layer_scores import LayerScores
from interlace.method.selection import Plan
from interlace.method.surgery import prune
from interlace.models import loading, publication
from interlace.models.cards import model_card
from interlace.models.loading import load_model, load_processor
from interlace.models.publication import push_to_hub
from interlace.models.sources import model_folder, model_source, weights_mark
from interlace.nano.benchmarks import write_nano_data
from interlace.nano.model import nano_model

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {% if m.content is string %}{{ m.content }}{% else %}{%"
    " for c in m.content %}{% if c.type == 'image' %}IMAGE{% else %}{{ c.text }}{% endif %}{%"
    " endfor %}{% endif %}~\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
CHARACTERS = [
    "<pad>",
    "~",
    "?",
    *" \nabcdefghijklmnopqrstuvwxyz0123456789.,:;!'\"()-+%/ABCDEFGHIJKLMNOPQRSTUVW",
]


def characters(names, **special):
    "A tokenizer of single characters, with the tokens `names` from id 90 on"
    vocab = {c: i for i, c in enumerate(CHARACTERS)} | {n: 90 + i for i, n in enumerate(names)}
    assert len(CHARACTERS) <= 90
    t = Tokenizer(models.WordLevel(vocab, unk_token="?"))
    t.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=t,
        pad_token="<pad>",
        eos_token="~",
        unk_token="?",
        padding_side="left",
        chat_template=TEMPLATE.replace("IMAGE", special.pop("mark", "")),
        extra_special_tokens=special or list(names),
    )


def own(family):
    "A small untrained model of a family and its processor"
    if family == "qwen3-vl":
        processor = load_processor("nano-l")
        return nano_model(processor=processor, layers=L), processor
    model, _ = tiny(family)
    if family == "llama":
        return model, characters([])
    if family == "idefics3":
        t = characters(
            ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"],
            mark="<image>",
        )
        pictures = Idefics3ImageProcessor(
            size=dict(longest_edge=16),
            max_image_size=dict(longest_edge=16),
            do_image_splitting=False,
        )
        return model, Idefics3Processor(pictures, t, image_seq_len=1, chat_template=t.chat_template)
    t = characters(
        ["<image>", "<begin>", "<end>"],
        image_token="<image>",
        boi_token="<begin>",
        eoi_token="<end>",
        mark="<begin>",
    )
    return model, Gemma3Processor(
        Gemma3ImageProcessor(size=dict(height=16, width=16)),
        t,
        chat_template=t.chat_template,
        image_seq_length=4,
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    "Calibration sets with and without images, and a model folder for each family"
    d = tmp_path_factory.mktemp("publication")
    for subset in ("objects", "street"):
        write_nano_data(d / "nano" / subset, fraction=0.0002, subsets=[subset])
        (d / "data" / subset).mkdir(parents=True)
        shutil.copy(d / "nano" / subset / "calibration.parquet", d / "data" / subset)
    turns = [[dict(user=f"what is {i} + 1?", assistant=str(i + 1))] for i in range(4)]
    Dataset.from_dict(
        dict(images=[[]] * 4, texts=turns),
        Features(
            images=List(Picture()),
            texts=List(dict(user=Value("string"), assistant=Value("string"))),
        ),
    ).to_parquet(str(d / "text.parquet"))
    for family in ("qwen3-vl", "idefics3", "gemma3", "llama"):
        for part in own(family):
            part.save_pretrained(d / family)
    return d


def ok(*args):
    r = command(*args)
    assert r.returncode == 0, r.stderr
    return r.stdout


def refused(*args, why):
    r = command(*args)
    lines = [line for line in r.stderr.splitlines() if line.startswith("interlace: ")]
    assert r.returncode == 2 and len(lines) == 1 and why in lines[0], r.stderr
    return lines[0]


@pytest.fixture(scope="module")
def pruned(work):
    "A function: family -> the folder that `interlace prune` made of its model"
    made = {}

    def of(family):
        if family not in made:
            ok(
                "prune",
                "--model",
                work / family,
                "--ratio",
                0.25,
                "--calibration",
                work / "text.parquet" if family == "llama" else work / "data",
                "--out",
                work / f"{family}-25",
                "--batch-size",
                4,
            )
            made[family] = work / f"{family}-25"
        return made[family]

    return of


def by_recipe(recipe, base, L):
    "The layers and weights that mergekit's passthrough would copy from a base model"
    slices = (
        recipe["slices"]
        if "slices" in recipe
        else next(m["slices"] for m in recipe["modules"].values() if "slices" in m)
    )
    layers = [i for s in slices for i in range(*s["sources"][0]["layer_range"])]
    assert (
        recipe["merge_method"] == "passthrough"
        and len({s["sources"][0]["model"] for s in slices}) == 1
    )
    numbered = [
        re.fullmatch(r"(.*language_model.*layers|.*text_model.layers|model.layers)\.(\d+)\.(.*)", k)
        for k in base
    ]
    out = {k: v for k, v in base.items() if not any(m and m[0] == k for m in numbered)}
    assert {int(m[2]) for m in numbered if m} == set(range(L))
    return layers, out | {
        f"{m[1]}.{layers.index(int(m[2]))}.{m[3]}": base[m[0]]
        for m in numbered
        if m and int(m[2]) in layers
    }


@pytest.mark.parametrize("family", ["qwen3-vl", "idefics3", "gemma3", "llama"])
def test_ones_own_model(work, pruned, family, monkeypatch):
    folder = pruned(family)
    made, card = (
        json.loads((folder / "interlace.json").read_text()),
        ModelCard.load(folder / "README.md"),
    )
    plan, text = Plan.from_json(json.dumps(made["plan"])), family == "llama"
    # stock classes, and what is in memory
    loader = AutoModelForCausalLM if text else AutoModelForImageTextToText
    again, info = loader.from_pretrained(folder, output_loading_info=True)
    assert (
        not info["missing_keys"]
        and not info["unexpected_keys"]
        and len(plan.kept) == again.config.get_text_config().num_hidden_layers == 6
    )
    whole = loader.from_pretrained(work / family)
    before = sum(p.numel() for p in whole.parameters())
    memory = prune(whole, plan).eval()
    processor = (AutoTokenizer if text else AutoProcessor).from_pretrained(folder)
    pictures = {} if text else dict(images=[Image.new("RGB", (32, 32), "red")])
    asked = processor.apply_chat_template(
        [
            dict(
                role="user",
                content=(
                    "1 + 1?"
                    if text
                    else [dict(type="image"), dict(type="text", text="what is it?")]
                ),
            )
        ],
        add_generation_prompt=True,
        tokenize=False,
    )
    inputs = processor(text=[asked], return_tensors="pt", **pictures)
    with torch.no_grad():
        assert torch.equal(memory(**inputs).logits, again.eval()(**inputs).logits)
    # the card: its facts, and its program
    after = sum(p.numel() for p in again.parameters())
    assert (
        made["parameters"] == dict(before=before, after=after, tune=made["parameters"]["tune"])
        and f"{before:,} before, {after:,} after" in card.text
    )
    for role, layers in (
        ("dropped", plan.drop),
        ("to tune", plan.tune),
        ("anchors, frozen", plan.anchor),
    ):
        assert f"| {role} | {', '.join(map(str, layers)) or 'none'} |" in card.text
    assert (card.data.base_model, card.data.library_name, card.data.pipeline_tag) == (
        family,
        "transformers",
        "text-generation" if text else "image-text-to-text",
    ) and "interlace" in card.data.tags
    assert (
        "Not fine-tuned." in card.text
        and "## Evaluation\n\nNot measured." in card.text
        and f"on {4 if text else 2} calibration samples" in card.text
        and str(work) not in card.content + (folder / "interlace.json").read_text()
    )
    monkeypatch.chdir(work)
    Image.new("RGB", (32, 32), "red").save("picture.png")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(re.search(r"```python\n(.*?)```", card.text, re.S)[1], {})
    assert said.getvalue()
    # the recipe: the layers, and the weights
    recipe, base = (
        yaml.safe_load((folder / "mergekit.yml").read_text()),
        load_file(work / family / "model.safetensors"),
    )
    layers, weights = by_recipe(recipe, base, L)
    saved = load_file(folder / "model.safetensors")
    assert (
        tuple(layers) == plan.kept
        and weights.keys() == saved.keys()
        and all(torch.equal(weights[k], saved[k]) for k in saved)
    )
    assert (
        "modules" in recipe
    ) != text  # a model with a vision tower is several modules to mergekit
    assert ("`processor_config.json`" in card.text) is (not text)
    assert (folder / "processor_config.json").is_file() is (not text)
    # the scores are those that the plan was made from
    from interlace.method.selection import make_plan

    assert make_plan(LayerScores.from_json(json.dumps(made["scores"])), 0.25) == plan


@pytest.mark.parametrize("family", ["qwen3-vl", "idefics3", "llama"])
def test_mergekit_makes_the_same_weights(work, pruned, family, tmp_path, monkeypatch):
    pytest.importorskip("mergekit", reason="mergekit is not installed")
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    monkeypatch.chdir(work)  # where the base model's folder lies
    run_merge(
        MergeConfiguration.model_validate(
            yaml.safe_load((pruned(family) / "mergekit.yml").read_text())
        ),
        str(tmp_path),
        MergeOptions(quiet=True, copy_tokenizer=False, write_model_card=False),
    )
    made, saved = (
        {k: v for f in tmp_path.glob("*.safetensors") for k, v in load_file(f).items()},
        load_file(pruned(family) / "model.safetensors"),
    )
    assert made.keys() == saved.keys() and all(torch.equal(made[k], saved[k]) for k in saved)


def test_weights_keep_their_precision(work):
    plan = Plan((4,), (5,), (6,), 36, "by hand", 1 / 36)
    plan.to_json(work / "one.json")
    ok(
        "prune",
        "--model",
        "nano-l",
        "--plan",
        work / "one.json",
        "--out",
        work / "half",
        "--base",
        "owner/nano",
    )
    assert {v.dtype for v in load_file(work / "half" / "model.safetensors").values()} == {
        torch.bfloat16
    } and json.loads((work / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    card = ModelCard.load(work / "half" / "README.md")
    assert (
        card.data.base_model == "owner/nano"
        and card.data.license == "apache-2.0"
        and "how its layers were scored is not recorded" in card.text
    )
    assert yaml.safe_load((work / "half" / "mergekit.yml").read_text())["dtype"] == "bfloat16"


def test_card_after_training_and_evaluation(work, pruned):
    folder = pruned("qwen3-vl")
    ok(
        "finetune",
        "--model",
        folder,
        "--data",
        work / "nano" / "objects" / "train.parquet",
        "--out",
        work / "tuned",
        "--batch-size",
        1,
        "--accumulation",
        1,
    )
    training, card = (
        json.loads((work / "tuned" / "training.json").read_text()),
        ModelCard.load(work / "tuned" / "README.md"),
    )
    assert (
        training["steps"] == 2
        and f"for 2 steps on {training['samples']} of {training['samples']} conversations"
        in card.text
        and f"Loss {training['loss'][0][1]:.3f} → {training['loss'][-1][1]:.3f}" in card.text
    )
    assert (
        "fine-tuned" in card.data.tags
        and "Not fine-tuned" not in card.text
        and "as they were before fine-tuning" in card.text
        and "## Evaluation\n\nNot measured." in card.text
    )
    assert (work / "tuned" / "mergekit.yml").read_text() == (folder / "mergekit.yml").read_text()
    record = dict(
        kind="evaluation",
        benchmarks={"POPE": dict(score=61.25, stderr=2.5, n=40, chance=50.0, metric="yesno")},
        average=dict(score=61.25, stderr=2.5),
        answers={"POPE": [1]},
        model="tuned",
        weights=weights_mark(str(work / "tuned")),
    )
    (work / "record.json").write_text(json.dumps(record))
    ok("card", work / "tuned", "--evaluation", work / "record.json")
    card = ModelCard.load(work / "tuned" / "README.md")
    assert (
        "| POPE | 61.2 ± 2.5 | 40 | 50.0 |" in card.text
        and [(r.dataset_name, r.metric_value) for r in card.data.eval_results] == [("POPE", 61.25)]
        and f"for {training['steps']} steps" in card.text
    )
    assert "answers" not in json.loads((work / "tuned" / "evaluation.json").read_text())
    refused(
        "card",
        folder,
        "--evaluation",
        work / "record.json",
        why="the evaluation is of another model (tuned)",
    )
    refused("card", work / "qwen3-vl", why="no interlace.json there")
    # where torch cannot be imported, the card is the same
    before = (work / "tuned" / "README.md").read_bytes()
    without_torch = (
        "import sys; sys.modules |= dict.fromkeys(['torch', 'transformers', 'datasets']);"
        " from interlace.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    args = ("card", str(work / "tuned"), "--evaluation", str(work / "record.json"))
    done = subprocess.run([sys.executable, "-c", without_torch, *args], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (work / "tuned" / "README.md").read_bytes() == before


def test_a_card_holds_no_markup_of_a_file(pruned):
    "Names come from files and folders of anyone; in the card they are text"
    made = json.loads((pruned("qwen3-vl") / "interlace.json").read_text())
    evil = 'x```\n# Bought <script>alert(1)</script> [a](http://b) | "; import os #'
    made["base"] |= dict(name=evil, on_hub=False)
    made["scores"]["about"]["calibration"] = dict(name=evil, fingerprint=evil)
    card = model_card(made, evil)
    before, rest = card.split("---\n", 2)[2].split("```python\n")
    code, after = rest.split("```", 1)
    bad = ("<script", "\n# Bought", "](http://b", "x`")
    assert not any(b in before + after for b in bad)
    folder = next(n for n in ast.parse(code).body if isinstance(n, ast.Assign))
    assert ast.literal_eval(folder.value) == evil


def test_a_text_model_is_timed(work):
    assert "first token" in ok("latency", "--model", work / "llama", "--turns", 1, "--tokens", 2)


def test_killed_while_writing(work, pruned, monkeypatch):
    """SIGKILL leaves no output folder, SIGTERM leaves no file at all; the same command then works

    After SIGKILL there are a part and a lock that nobody holds; the next command removes the lock.
    """
    args = (
        "prune",
        "--model",
        work / "llama",
        "--plan",
        work / "plan.json",
        "--out",
        work / "killed" / "out",
    )
    Plan((1, 4), (2, 5), (3, 6), L, "by hand", 0.25).to_json(work / "plan.json")
    for kill, left in ((signal.SIGTERM, 0), (signal.SIGKILL, 2)):
        if (child := os.fork()) == 0:
            publication.model_card = lambda *_, **__: os.kill(
                os.getpid(), kill
            )  # everything else has been written by then
            try:
                os._exit(command(*args).returncode)
            finally:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        assert (
            os.WEXITSTATUS(status) == 130
            if kill == signal.SIGTERM
            else os.WTERMSIG(status) == signal.SIGKILL
        )
        assert (
            not (work / "killed" / "out").exists()
            and len(list((work / "killed").iterdir())) == left
        )
    ok(*args)
    assert not (work / "killed" / ".out.lock").exists()
    assert {"README.md", "config.json", "interlace.json", "mergekit.yml", "model.safetensors"} <= {
        p.name for p in (work / "killed" / "out").iterdir()
    }


def test_output_folders_that_are_refused(work, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    refused(
        "prune",
        "--model",
        work / "llama",
        "--calibration",
        work / "text.parquet",
        "--out",
        tmp_path,
        why="holds something else than a model",
    )
    refused(
        "prune",
        "--model",
        work / "llama",
        "--calibration",
        work / "text.parquet",
        "--out",
        work / "llama",
        why="that is the model itself",
    )
    assert (tmp_path / "mine.txt").read_text() == "precious" and (
        work / "llama" / "model.safetensors"
    ).exists()


def test_calibration_sets_that_are_refused(work, tmp_path):
    def prune_with(*args, why):
        return refused("prune", *args, "--out", tmp_path / "out", why=why)

    prune_with(
        "--model",
        work / "llama",
        "--calibration",
        work / "data",
        why="objects/calibration.parquet: row 0 has an image, and this is a text model",
    )
    (tmp_path / "empty").mkdir()
    prune_with(
        "--model",
        work / "llama",
        "--calibration",
        tmp_path / "empty",
        why="no parquet file in this folder",
    )
    full = Dataset.from_parquet(str(work / "data" / "street" / "calibration.parquet")).to_list()[0]
    Dataset.from_list(
        [full | dict(images=full["images"] * 4)],
        Features(
            images=List(Picture()),
            texts=List(dict(user=Value("string"), assistant=Value("string"))),
            id=Value("string"),
            source=Value("string"),
        ),
    ).to_parquet(str(tmp_path / "many.parquet"))
    prune_with(
        "--model",
        work / "qwen3-vl",
        "--calibration",
        tmp_path / "many.parquet",
        why="no calibration sample (those with more than 3 images are skipped)",
    )
    shutil.copytree(work / "llama", tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    prune_with(
        "--model",
        tmp_path / "base",
        "--calibration",
        work / "text.parquet",
        why="has no chat template",
    )
    prune_with(
        "--model",
        work / "idefics3",
        "--max-pixels",
        "4096",
        "--calibration",
        work / "data",
        why="Idefics3ImageProcessor has no pixel limits",
    )
    assert not (tmp_path / "out").exists()


# What ran out


@pytest.mark.parametrize(
    "error, why",
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            "not enough GPU memory (CUDA out of memory",
        ),
        (MemoryError(), "not enough memory (MemoryError); lower --batch-size"),
        (
            RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4"
                " bytes"
            ),
            "not enough memory",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "not enough disk space"),
        (
            Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
            "not enough disk space",
        ),
    ],
    ids=["gpu", "memory", "allocator", "disk", "safetensors"],
)
def test_what_ran_out(work, tmp_path, monkeypatch, error, why):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(publication, "model_card", fails)
    Plan((1, 4), (2, 5), (3, 6), L, "by hand", 0.25).to_json(work / "plan.json")
    assert "nothing half-written" in refused(
        "prune",
        "--model",
        work / "llama",
        "--plan",
        work / "plan.json",
        "--out",
        tmp_path / "out",
        why=why,
    )
    assert not list(tmp_path.iterdir())


def test_anything_else_is_a_bug(work, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(publication, "model_card", fails)
    with pytest.raises(RuntimeError, match="shapes differ"):
        command(
            "prune",
            "--model",
            work / "llama",
            "--plan",
            work / "plan.json",
            "--out",
            tmp_path / "out",
        )


def test_out_of_memory_while_loading(work, monkeypatch):
    def fails(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fails)
    with pytest.raises(BadInput, match="llama: not enough GPU memory to load it .*dtype bfloat16"):
        load_model(str(work / "llama"))


# Names and revisions


def test_names():
    assert (
        model_source("owner/name@refs/pr/1") == ("owner/name", "refs/pr/1")
        and model_source("owner/name") == ("owner/name", None)
        and model_folder("owner/name@v1") == "owner/name"
    )
    assert weights_mark("owner/name@v1") == "owner/name@v1" and model_source("nano-s")[1] is None
    for wrong in ("owner/name@", "owner/na me", "-owner/name", "tests/modle", "modle", "a/b/c"):
        with pytest.raises(BadInput):
            model_source(wrong)


def test_a_folder_may_have_an_at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("owner/name@v1").mkdir(parents=True)
    assert model_source("owner/name@v1") == ("owner/name@v1", None)


def test_each_revision_is_its_own_model(tmp_path, monkeypatch):
    """Configuration, weights and processor all come from the requested commit

    The hub cache holds two commits of one repository.
    """

    def width(name):
        return load_model(name)[0].config.text_config.intermediate_size

    large, small = width("nano-l"), width("nano-s")
    assert large > small
    cached = tmp_path / "models--owner--name"
    for commit, nano in (("a" * 40, "nano-l"), ("b" * 40, "nano-s")):
        shutil.copytree(model_folder(nano), cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "small").write_text("b" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    widths = {r: width(f"owner/name@{r}") for r in ("a" * 40, "b" * 40, "small")}
    assert widths == {"a" * 40: large, "b" * 40: small, "small": small}
    assert publication.base_of("owner/name@small") | dict(licence=None) == dict(
        name="owner/name",
        on_hub=True,
        revision="b" * 40,
        weights="owner/name@small",
        dtype="bfloat16",
        licence=None,
    )
    with pytest.raises(BadInput, match="owner/name@v9: the hub cannot be reached"):
        load_model("owner/name@v9")


@pytest.mark.parametrize(
    "error, why",
    [
        (hub.RevisionNotFoundError, "no revision 'v9'"),
        (
            hub.GatedRepoError,
            (
                "a gated repository; accept its terms at https://huggingface.co/owner/name, then"
                " log in"
            ),
        ),
        (hub.RepositoryNotFoundError, "no such repository, or it is private"),
        (hub.HfHubHTTPError, "the hub cannot be reached"),
        (hub.RemoteEntryNotFoundError, "no readable config.json"),
        (httpx.ConnectError, "the hub cannot be reached"),
        (OSError, "not enough disk space to load it"),
    ],
)
def test_what_the_hub_says(monkeypatch, error, why):
    def answers(*_, **__):
        if error is httpx.ConnectError:
            raise error("no route")
        if error is OSError:
            raise OSError(errno.ENOSPC, "No space left on device")
        raise error(
            "long advice",
            response=httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co")),
        )

    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", answers)
    assert why in refused("evaluate", "--model", "owner/name@v9", why="owner/name@v9: ")


def test_attention(work, monkeypatch):
    assert load_model(str(work / "llama"))[0].config._attn_implementation == "sdpa"
    asked = []

    def stop(*_, attn_implementation, **__):
        asked.append(attn_implementation)
        raise OSError("enough")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", stop)
    monkeypatch.setattr(loading, "is_flash_attn_2_available", lambda: True)
    for dtype, device, attention in (
        ("bfloat16", "cuda", "auto"),
        ("float32", "cuda", "auto"),
        ("bfloat16", "cpu", "auto"),
        ("float32", "cuda", "eager"),
    ):
        with pytest.raises(BadInput):
            load_model(str(work / "llama"), dtype, attention, device)
    assert asked == ["flash_attention_2", None, None, "eager"]


def test_pixel_limits():
    p = load_processor("nano-l", min_pixels=32**2, max_pixels=64**2)
    assert (p.image_processor.size["shortest_edge"], p.image_processor.size["longest_edge"]) == (
        32**2,
        64**2,
    ) and load_processor("nano-l").image_processor.size["longest_edge"] == 256**2
    patches = [
        int(
            p.image_processor(images=[Image.new("RGB", (s, s))], return_tensors="pt")[
                "image_grid_thw"
            ].prod()
        )
        * 8
        * 8
        for s in (8, 48, 500)
    ]
    assert patches[0] == 32**2 and patches[1] == 48**2 and patches[2] == 64**2
    with pytest.raises(BadInput, match="min_pixels 9999 and max_pixels 4096"):
        load_processor("nano-l", 9999, 64**2)


# The hub


class FakeHub:
    "A hub that records the calls of `push_to_hub`"

    def __init__(self, public=False, fails=None):
        self.public, self.fails, self.asked = public, fails, []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            if self.fails and self.fails[0] == name:
                raise self.fails[1]
            self.asked.append((name, *args, kwargs))
            return dict(
                whoami=dict(name="somebody"),
                create_repo="https://huggingface.co/somebody/mine",
                repo_info=SimpleNamespace(private=not self.public),
            ).get(name)

        return call


def answer(status):
    return hub.HfHubHTTPError(
        "no",
        response=httpx.Response(status, request=httpx.Request("POST", "https://huggingface.co")),
    )


def test_push(work, pruned, tmp_path):
    shutil.copytree(pruned("llama"), tmp_path / "mine")
    folder, card = tmp_path / "mine", tmp_path / "mine" / "README.md"
    with pytest.raises(BadInput, match="base_model 'llama' is a folder's name"):
        push_to_hub(folder, "somebody/mine", api=FakeHub())
    card.write_text(card.read_text().replace("base_model: llama", "base_model: owner/llama"))
    api = FakeHub()
    assert (
        push_to_hub(folder, "somebody/mine", private=True, revision="v1", api=api)
        == "https://huggingface.co/somebody/mine/tree/v1"
    )
    assert [a[0] for a in api.asked] == [
        "whoami",
        "create_repo",
        "repo_info",
        "create_branch",
        "upload_folder",
    ]
    assert (
        api.asked[1][1:] == ("somebody/mine", dict(private=True, exist_ok=True))
        and api.asked[4][1]["folder_path"] == str(folder)
        and api.asked[4][1]["revision"] == "v1"
    )
    api = FakeHub(public=True)
    with pytest.raises(BadInput, match="exists and is public"):
        push_to_hub(folder, "somebody/mine", private=True, api=api)
    assert "upload_folder" not in [a[0] for a in api.asked]
    api = FakeHub(public=True)
    assert push_to_hub(
        folder, "somebody/mine", api=api
    ) == "https://huggingface.co/somebody/mine" and [a[0] for a in api.asked] == [
        "whoami",
        "create_repo",
        "upload_folder",
    ]
    for fails, why in (
        (("whoami", hub.LocalTokenNotFoundError("…")), "log in with: hf auth login"),
        (("whoami", answer(401)), "does not accept the token"),
        (("create_repo", answer(403)), "does not let somebody write there"),
        (("upload_folder", answer(500)), "the hub refused"),
        (("upload_folder", httpx.ConnectError("…")), "cannot be reached"),
        (("upload_folder", ValueError("Invalid metadata in README.md.")), "Invalid metadata"),
    ):
        with pytest.raises(BadInput, match=why):
            push_to_hub(folder, "somebody/mine", api=FakeHub(fails=fails))
    refused("push-to-hub", folder, "somebody/mine", why="somebody/mine: ")  # no token, no network
    refused("push-to-hub", folder, "mine", why="not a hub id; give owner/name")
    refused("push-to-hub", tmp_path, "somebody/mine", why="no model folder")
    card.write_text("no front matter")
    refused("push-to-hub", folder, "somebody/mine", why="README.md: no model card")


def test_the_working_folder_can_be_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(model_folder("nano-s"))
    assert model_source(".") == (".", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="config.json"):
        load_model(".")


def test_a_folder_without_its_tokenizer_is_one_line(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model_folder("nano-l"), folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match="its tokenizer has no vocabulary"):
        load_processor(str(folder))

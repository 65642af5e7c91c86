"""Tiny random models of all families under test, and a copy of the project for runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def needed(thing, what):
    """Return `thing`; skip the test if it is missing

    With INTERLACE_BROWSER=required the test fails instead.
    """
    if thing:
        return thing
    (pytest.fail if os.environ.get("INTERLACE_BROWSER") == "required" else pytest.skip)(
        f"not here: {what}"
    )


def forget_extensions():
    "Take out of the library what files added to it, as a new process would begin"
    from interlace.core import provenance, registry

    for source in list(provenance.IMPORTED):
        registry._forget(source)
    provenance.IMPORTED.clear()


@pytest.fixture(autouse=True)
def only_built_in():
    "What a test adds to the library ends with the test"
    yield
    if "interlace.core.registry" in sys.modules:
        forget_extensions()


@pytest.fixture(scope="session")
def browser():
    "A headless Chromium without any network traffic of its own"
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="not here: the package playwright: pip install -e .[dev]"
    )
    path = needed(
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome"),
        "chromium, for the tests in a browser: apt-get install chromium",
    )
    quiet = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=quiet)
        yield browser
        browser.close()


L = 8
TEXT = dict(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=L,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=0,
)
MROPE = dict(rope_type="default", rope_theta=10_000.0, mrope_section=[2, 1, 1])
IMAGE, START, END, VIDEO = 90, 91, 92, 93


def _ids(n_image, T=24):
    g = torch.Generator().manual_seed(3)
    ids = torch.randint(1, 80, (2, T), generator=g)
    ids[:, 3 : 3 + n_image] = IMAGE
    if n_image:
        ids[:, 2], ids[:, 3 + n_image] = START, END
    return ids


def _qwen_inputs(patch, channels_first=True):
    g = torch.Generator().manual_seed(4)
    ids = _ids(4)
    return dict(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == IMAGE).int(),
        pixel_values=torch.randn(2 * 16, 3 * 2 * patch * patch, generator=g),
        image_grid_thw=torch.tensor([[1, 4, 4]] * 2),
    )


def qwen3_vl(moe=False):
    import transformers as t

    cls = "Qwen3VLMoe" if moe else "Qwen3VL"
    text = TEXT | dict(head_dim=8, rope_parameters=MROPE, tie_word_embeddings=not moe)
    if moe:
        text |= dict(
            moe_intermediate_size=16,
            num_experts=4,
            num_experts_per_tok=2,
            decoder_sparse_step=1,
            mlp_only_layers=[3, 5],
        )
    config = getattr(t, cls + "Config")(
        text_config=text,
        vision_config=dict(
            depth=3,
            hidden_size=32,
            intermediate_size=64,
            num_heads=2,
            patch_size=8,
            out_hidden_size=32,
            num_position_embeddings=16,
            deepstack_visual_indexes=[0, 1, 2],
        ),
        tie_word_embeddings=not moe,
        image_token_id=IMAGE,
        vision_start_token_id=START,
        vision_end_token_id=END,
        video_token_id=VIDEO,
    )
    return getattr(t, cls + "ForConditionalGeneration")(config), _qwen_inputs(8)


def qwen2_5_vl():
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    config = Qwen2_5_VLConfig(
        text_config=TEXT
        | dict(
            rope_parameters=MROPE, use_sliding_window=True, sliding_window=8, max_window_layers=4
        ),
        vision_config=dict(
            depth=2,
            hidden_size=32,
            intermediate_size=64,
            num_heads=2,
            patch_size=8,
            out_hidden_size=32,
            fullatt_block_indexes=[1],
            window_size=32,
        ),
        image_token_id=IMAGE,
        vision_start_token_id=START,
        vision_end_token_id=END,
        video_token_id=VIDEO,
    )
    return Qwen2_5_VLForConditionalGeneration(config), _qwen_inputs(8)


def _text_only():
    ids = _ids(0)
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids))


def llava_onevision():
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        Qwen2Config,
        SiglipVisionConfig,
    )

    config = LlavaOnevisionConfig(
        text_config=Qwen2Config(**TEXT),
        vision_config=SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=L,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        ),
        image_token_index=IMAGE,
        video_token_index=VIDEO,
    )
    return LlavaOnevisionForConditionalGeneration(config), _text_only()


def idefics3():
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, LlamaConfig

    config = Idefics3Config(
        text_config=LlamaConfig(**TEXT),
        vision_config=dict(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=L,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        ),
        image_token_id=IMAGE,
        scale_factor=2,
        pad_token_id=0,
    )
    ids = _ids(1)
    g = torch.Generator().manual_seed(4)
    return Idefics3ForConditionalGeneration(config), dict(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=torch.randn(2, 1, 3, 16, 16, generator=g),
    )


def smolvlm():
    from transformers import LlamaConfig, SmolVLMConfig, SmolVLMForConditionalGeneration

    config = SmolVLMConfig(
        text_config=LlamaConfig(**TEXT),
        vision_config=dict(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        ),
        image_token_id=IMAGE,
        scale_factor=2,
        pad_token_id=0,
    )
    return SmolVLMForConditionalGeneration(config), idefics3()[1]


def gemma3():
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    config = Gemma3Config(
        text_config=TEXT
        | dict(
            head_dim=8,
            sliding_window=8,
            layer_types=[
                "sliding_attention",
                "sliding_attention",
                "full_attention",
                "sliding_attention",
            ]
            * 2,
        ),
        vision_config=dict(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        ),
        mm_tokens_per_image=4,
        image_token_index=IMAGE,
        boi_token_index=START,
        eoi_token_index=END,
    )
    ids = _ids(4)
    g = torch.Generator().manual_seed(4)
    return Gemma3ForConditionalGeneration(config), dict(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        token_type_ids=(ids == IMAGE).int(),
        pixel_values=torch.randn(2, 3, 16, 16, generator=g),
    )


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**TEXT)), _text_only()


FAMILIES = {
    "qwen3-vl": qwen3_vl,
    "qwen3-vl-moe": lambda: qwen3_vl(moe=True),
    "qwen2.5-vl": qwen2_5_vl,
    "llava-onevision": llava_onevision,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "gemma3": gemma3,
    "llama": llama,
}


# larger than the usual 0.02, so that every layer matters
def tiny(name, seed=0):
    torch.manual_seed(seed)
    model, inputs = FAMILIES[name]()
    model.eval()
    for p in model.parameters():
        if p.dim() >= 2:
            p.data.normal_(0, 0.2)
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    return model, inputs


def pytest_collection_modifyitems(items):
    "Run the longest files first, so that the workers finish together"
    first = [
        "test_reproduction.py",
        "test_rehearsal.py",
        "test_site.py",
        "test_text_model.py",
        "test_metrics.py",
        "test_nano_world.py",
        "test_finetuning.py",
    ]
    items.sort(key=lambda i: first.index(i.path.name) if i.path.name in first else len(first))


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    "A copy of the project that tests may run, change and break"
    to = tmp_path_factory.mktemp("project")
    for name in ("nbs", "interlace"):
        shutil.copytree(
            ROOT / name,
            to / name,
            ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"),
        )
    for name in ("settings.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, to / name)
    return to


def command(*args):
    "Run the console command in this process, which is quick because its imports are done"
    import contextlib
    import io

    from interlace.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(a) for a in args])
    return subprocess.CompletedProcess(args, status, out.getvalue(), err.getvalue())


def interlace(*args, root=ROOT, python=sys.executable, **env):
    "Run the console command as a separate process in a project folder"
    env = os.environ | {"PYTHONPATH": str(root), "INTERLACE_ROOT": str(root)} | env
    return subprocess.run(
        [python, "-m", "interlace.cli", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=root,
        env=env,
    )

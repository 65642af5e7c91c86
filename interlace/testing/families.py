"""Tiny models of every class that transformers knows, and whether surgery is right on them."""

# A model is built from its class's default configuration with small sizes and random weights. The
# oracle is the whole model in which the dropped layers pass on what enters them: a pruned model
# that equals its own reload proves nothing, because both can be wrong in the same way.
# (A longer docstring would enter the package's own, where nbdev lists such modules.)

import copy
import functools
import json
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import torch
import transformers
from transformers import PreTrainedConfig
from transformers.models.auto import configuration_auto, modeling_auto

from interlace.core.errors import BadInput
from interlace.core.machine import cores
from interlace.method.asking import image_inputs, logits
from interlace.method.decoder import find_decoder
from interlace.method.selection import Plan
from interlace.method.surgery import prune, skipping

LAYERS, WIDTH, HEADS, VOCABULARY = 12, 64, 4, 512
MEMORY = 16 << 30  # bytes of address space for each class
WAIT = 5  # times the limit that a class may take by the clock
MAPPINGS = ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES")
# names of configuration fields, by what they hold
HEAD_COUNTS = {
    *("num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads"),
    *("num_attn_heads", "decoder_attention_heads", "encoder_attention_heads"),
}
KEY_HEAD_COUNTS = {
    *("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
    *("num_query_groups", "num_global_key_value_heads", "swa_num_key_value_heads"),
}
DEPTHS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers")
OTHER_DEPTHS = {"depth", "encoder_layers", "vision_layers", "num_global_layers", *DEPTHS}
FIXED = {  # field -> value in a tiny configuration
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "model_dim"), WIDTH),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_groups"), 1),
    **dict.fromkeys(("head_dim", "attention_head_dim", "kv_channels", "d_kv"), WIDTH // HEADS),
    **dict.fromkeys(("v_head_dim", "qk_nope_head_dim", "global_head_dim"), WIDTH // HEADS),
    **dict.fromkeys(("swa_head_dim", "swa_v_head_dim", "index_head_dim"), WIDTH // HEADS),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "lora_rank", "o_lora_rank"), 16),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim"), 32),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 16),
    **dict(projection_dim=16, qk_rope_head_dim=8, qk_head_dim=WIDTH // HEADS + 8),
    **dict(hidden_size_per_layer_input=8, num_kv_shared_layers=0, mamba_d_ssm=128, image_size=32),
    **dict(
        num_position_embeddings=16,
        mm_tokens_per_image=4,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ),
}
OTHERS = dict(  # values that are no whole numbers
    deepstack_visual_indexes=[0, 1, 2],
    fullatt_block_indexes=[1],
    deepstack_layer_map=[[0, 1], [1, 4]],
    spatial_target_layers=[2, 5, 7, 10],
    downsample_rate="1/2",
    image_grid_pinpoints=[[32, 32]],
    image_size=[32, 32],
    patch_size=[8, 8],
)
INNER = re.compile(r"intermediate|ffn_(dim|hidden)|n_inner|mlp_hidden|d_ff|inner_dim|_inner_size")
EXPERTS = re.compile(r"(^|_)(num|n)_.*experts$|^num_experts$")
CHOSEN = re.compile(r"experts_per_tok|^top_k$|moe_topk|moe_k$|num_selected_experts|top_k_experts")


def model_classes() -> dict:  # class name -> its kind, a key of transformers' CONFIG_MAPPING
    "All causal-language and image-text classes of the installed transformers"
    found = {}
    for mapping in MAPPINGS:
        for kind, names in getattr(modeling_auto, mapping).items():
            for name in names if isinstance(names, (list, tuple)) else [names]:
                found.setdefault(name, kind)
    return found


def _key_heads(value, heads):
    "Key heads in the same relation to the query heads: one, all, or some"
    return 1 if value == 1 else HEADS if heads and value >= heads else 2


def _token(name, value):
    "The number of a special token, inside the small vocabulary"
    return value if value < VOCABULARY else VOCABULARY - 10 - sum(map(ord, name)) % 90


def _small_value(name, value, is_text, heads):
    "The value of a field in a tiny configuration; None: as it is"
    if isinstance(value, bool) or not isinstance(value, int):
        return OTHERS.get(name)
    rules = (  # the first that fits counts
        (name in HEAD_COUNTS, HEADS),
        (name in KEY_HEAD_COUNTS, _key_heads(value, heads)),
        (is_text and name in DEPTHS, LAYERS),
        (not is_text and name in OTHER_DEPTHS, 3),
        (name.removesuffix("_per_layer_input").endswith("vocab_size"), VOCABULARY),
        (name in FIXED, FIXED.get(name)),
        (not is_text and name == "patch_size", 8),
        (not is_text and name in ("out_hidden_size", "projection_size", "output_dim"), WIDTH),
        (INNER.search(name), WIDTH // 2),
        (EXPERTS.search(name), max(1, min(4, value))),
        (CHOSEN.search(name), min(2, value)),
        (name.endswith(("_token_id", "_token_index")), _token(name, value)),
    )
    return next((small for fits, small in rules if fits), None)


def _small_values(config, is_text):
    "The fields of a configuration that become small"
    plain = {k: v for k, v in config.to_dict().items() if not isinstance(v, dict)}
    heads = next((plain[k] for k in HEAD_COUNTS if isinstance(plain.get(k), int)), None)
    new = {k: _small_value(k, v, is_text, heads) for k, v in plain.items()}
    if "qk_rope_head_dim" in plain and "head_dim" in plain:
        new["head_dim"] = FIXED["qk_rope_head_dim"]
    return {k: v for k, v in new.items() if v is not None}


def _set(config, values):
    "Set what a configuration lets itself be set to"
    for name, value in values.items():
        try:
            if getattr(config, name, None) != value:
                setattr(config, name, value)
        except Exception:  # it is read-only, or differs from layer to layer
            continue


def _fit_rope(config):
    "Make the parts of a multimodal rope fill half of the rotated dimensions, also where unnamed"
    rope = getattr(config, "rope_parameters", None)
    for part in [rope, *rope.values()] if isinstance(rope, dict) else []:
        if isinstance(part, dict) and (part.get("mrope_section") or "rope_theta" in part):
            n = len(part.get("mrope_section") or "thw")  # time, height, width
            half = FIXED["qk_rope_head_dim"]
            part["mrope_section"] = [half // n + half % n, *[half // n] * (n - 1)]


def _fit_lists(config, depth):
    "Cut lists with one entry per layer, or with layer numbers, to the small depth"
    for name, value in list(config.to_dict().items()):
        if not isinstance(value, (list, tuple)) or not value:
            continue
        whole = all(isinstance(v, int) and not isinstance(v, bool) for v in value)
        if depth and len(value) == depth != LAYERS:
            _set(config, {name: (list(value) * LAYERS)[:LAYERS]})
        elif whole and len(set(value)) == len(value) and ("layer" in name or "idxs" in name):
            _set(config, {name: [v for v in value if v < LAYERS]})


def tiny_config(
    kind: str,  # a key of transformers' CONFIG_MAPPING
):
    "A configuration of this kind with small sizes"
    base = configuration_auto.CONFIG_MAPPING[kind]()
    text = type(base.get_text_config(decoder=True))
    small = _made_small(base, text)
    if (inner := small.get_text_config(decoder=True)) is not small:
        _fit_rope(inner)
    return small


def _made_small(config, text):
    is_text = type(config) is text
    new = _small_values(config, is_text)
    inner = {k: v for k, v in vars(config).items() if isinstance(v, PreTrainedConfig)}
    inner = {k: _made_small(v, text) for k, v in inner.items()}
    try:
        # the class derives from the new sizes what it can
        small = type(config)(**new, **inner)
    except Exception:
        small = copy.deepcopy(config)
    _set(small, new | inner)
    if is_text:
        depth = next((getattr(config, k) for k in DEPTHS if hasattr(config, k)), None)
        _fit_lists(small, depth)
    return small


def tiny_model(
    name: str,  # a class name, from `model_classes`
    config=None,  # by default a tiny one of its kind
) -> torch.nn.Module:
    "A model of a class with random weights, large enough that every layer matters"
    cls = getattr(transformers, name)
    config = config or tiny_config(model_classes()[name])
    wanted = getattr(cls, "config_class", None)
    if isinstance(wanted, type) and not isinstance(config, wanted):
        config = config.get_text_config(decoder=True)
    torch.manual_seed(0)
    model = cls(config).eval()
    draw = torch.Generator().manual_seed(1)
    for p in model.parameters():
        if p.is_floating_point() and p.dim() > 1:
            p.data.normal_(0, 0.15, generator=draw)
        elif p.is_floating_point():
            p.data += torch.randn(p.shape, generator=draw) * 0.1
    model.tie_weights()
    return model


def text_inputs() -> dict:  # `input_ids` and `attention_mask`, `1 24`
    "A short text"
    ids = torch.randint(3, 300, (1, 24), generator=torch.Generator().manual_seed(1))
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids))


def distance(a, b) -> float:  # 0: equal; off by more than 1e-3: something else
    "The largest difference of two models' logits, relative to their size"
    return float(((a - b).abs() / (1 + a.abs())).max()) if a.shape == b.shape else float("inf")


def random_plan(
    n_layers: int,  # layers of the model
    seed: int,  # of the draw
    spare: int = 0,  # first layers that stay: features may enter after them, by position
) -> Plan:  # three triplets
    "A plan of three random triplets"
    rng, used, rows = random.Random(seed), set(), []
    for start in rng.sample(range(spare, n_layers - 2), n_layers - 2 - spare):
        window = {start, start + 1, start + 2}
        if used & window or len(rows) == 3:
            continue
        used |= window
        first = rng.random() < 0.5
        rows.append((start + (not first), start + first, start + 2))
    drop, tune, anchor = (tuple(sorted(column)) for column in zip(*rows, strict=True))
    return Plan(drop, tune, anchor, n_layers, "random triplets", len(drop) / n_layers)


def skipped(model, plan, inputs):
    "What the whole model says when the dropped layers pass on what enters them"
    layers = find_decoder(model).layers
    with skipping([layers[i] for i in plan.drop]):
        return logits(model, inputs)


@dataclass
class Outcome:
    "What became of one class"

    name: str
    verdict: str = "not buildable"  # 'right', 'refused', 'wrong', 'broken', 'not buildable'
    images: bool = False  # whether it was also asked about an image
    off: float = 0.0  # largest distance from the oracle, and of the reload from the pruned model
    reason: str = ""


def _reloaded(model):
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
        how = model.config._attn_implementation
        return type(model).from_pretrained(folder, attn_implementation=how).eval()


def _reason(error):
    "An error in one line"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def check_class(
    name: str,  # a class name, from `model_classes`
    seed: int = 0,  # of the plan
) -> Outcome:
    "Prune a tiny model of a class by a random plan and compare it with the oracle"
    out = Outcome(name)
    try:
        model = tiny_model(name)
        asked = [text_inputs()]
        logits(model, asked[0])
    except Exception as e:
        out.reason = _reason(e)
        return out
    try:
        depth = len(find_decoder(model))
        if picture := image_inputs(model):
            asked.append(picture)
            out.images = True
        deep = getattr(
            getattr(model.config, "vision_config", None), "deepstack_visual_indexes", None
        )
        plan = random_plan(depth, seed, len(deep or ()))
        wanted = [skipped(model, plan, inputs) for inputs in asked]
        prune(model, plan)
    except BadInput as e:
        out.verdict, out.reason = "refused", str(e)
        return out
    said = None
    try:
        said = [logits(model, inputs) for inputs in asked]
        again = _reloaded(model)
        out.off = max(map(distance, wanted + said, said + [logits(again, i) for i in asked]))
        out.verdict = "right" if out.off < 1e-3 else "wrong"
    except Exception as e:
        # a pruned model that runs cannot be blamed for a class that never reloads
        excused = said is not None and not _reloads_whole(name)
        out.verdict, out.reason = "not buildable" if excused else "broken", _reason(e)
    return out


def _reloads_whole(name):
    "Whether the tiny model of a class loads again before anything was pruned"
    try:
        _reloaded(tiny_model(name))
    except Exception:
        return False
    return True


def _child(pipe, name, seed, limit):
    "One class in a process of its own: some crash, some never end"
    # seconds of the processor, which do not depend on what else runs; a class may also just wait
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    signal.alarm(WAIT * limit)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, until the process ends
    # some classes stay large whatever their sizes; those fail instead of filling the memory
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    pipe.send(json.dumps(asdict(check_class(name, seed))))


def _in_a_process(name, seed, limit):
    "The `Outcome` of a class that is checked in a process of its own"
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(there, name, seed, limit))
    process.start()
    there.close()
    try:
        found = here.poll(WAIT * limit + 10) and here.recv()
    except EOFError:
        found = None
    process.join(1)
    process.kill()
    if found:
        return Outcome(**json.loads(found))
    return Outcome(
        name, "broken", reason=f"ended without a result, or took over {limit} s of the processor"
    )


def sweep(
    names: list | None = None,  # class names; by default all
    seed: int = 0,  # of the plans
    limit: int = 180,  # seconds of the processor per class
):
    "Yield the `Outcome` of each class; each runs in a process of its own, one per core at a time"
    with ThreadPoolExecutor(cores()) as pool:
        check = functools.partial(_in_a_process, seed=seed, limit=limit)
        yield from pool.map(check, names or sorted(model_classes()))

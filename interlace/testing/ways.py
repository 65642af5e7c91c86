"""What `make bench` times: the same work, done by a build of this library or as others do it.

A worker process runs this file with one build on its path, so it uses only names of every build."""

import contextlib
import copy
import inspect
import json
import os
import shutil
import sys
import tempfile
import time

import torch
from torch.nn.functional import cosine_similarity

import interlace as il

MADE = {}  # name -> function of the setting that prepares and returns a function to time


def way(function):
    "Register a function under its name"
    MADE[function.__name__] = function
    return function


def _load(at, dtype="float32"):
    return il.load_model(at["model"], dtype, at["attention"])


def _is_half(at):
    return at["precision"] == "bfloat16"


def _in_other_precision(at):
    return at | dict(precision="float32" if _is_half(at) else "bfloat16")


def _samples(at, name, n):
    return list(il.load_samples(f"{at['data']}/{name}.parquet"))[:n]


def _prompts(at, processor, n=None, size=16):
    rows = _samples(at, "calibration", n or at["samples"])
    return list(il.calibration_batches(rows, processor, size))


def _turns(n):
    "A limit of n turns as the build's own argument; earlier builds counted messages"
    counts = "turns" in inspect.signature(il.Collator).parameters
    return dict(turns=n) if counts else dict(max_messages=2 * n)


def _by_length(collate, rows):
    return collate.by_length(rows) if hasattr(collate, "by_length") else rows


# scoring


@way
def scoring(at):
    network, processor = _load(at)
    batches = _prompts(at, processor)
    return lambda: il.score_layers(network, batches, progress=False)


@way
def bare_forward(at):
    "The decoder's forward pass on the same batches, and nothing else: no scoring is faster"
    network, processor = _load(at)
    batches = _prompts(at, processor)

    @torch.inference_mode()
    def run():
        for batch in batches:
            network.base_model(**batch, use_cache=False)

    return run


def _compared_states(at, spans, size):
    "A pass for each span over batches of a size, with all states kept and compared"
    network, processor = _load(at)
    batches = _prompts(at, processor, size=size)

    @torch.inference_mode()
    def run():
        for span in spans:
            for batch in batches:
                states = network(**batch, output_hidden_states=True, use_cache=False).hidden_states
                for x, y in zip(states, states[span:], strict=False):
                    cosine_similarity(x.float(), y.float(), dim=-1).mean()

    return run


@way
def three_passes(at):
    "A pass for each span, one sample at a time, with all states kept"
    return _compared_states(at, (1, 2, 3), 1)


@way
def all_states(at):
    "One batched pass for one span with all states kept, as Model-Optimizer and PruneMe do"
    return _compared_states(at, (1,), 16)


# fine-tuning


def _plan(network, processor, at):
    scores = il.score_layers(network, _prompts(at, processor, 16), progress=False)
    return il.make_plan(scores, at["ratio"])


def _finetuning(at, network, processor, **settings):
    plan, rows = _plan(network, processor, at), _samples(at, "train", 16 * at["steps"])
    il.prune(network, plan)
    place = tempfile.mkdtemp()

    def run():
        shutil.rmtree(place)
        how = dict(batch_size=16, accumulation=1, learning_rate=1e-6, max_length=512)
        how |= _turns(5) | dict(progress=False) | settings
        il.finetune(copy.deepcopy(network), plan, rows, processor, place, **how)

    return run


@way
def finetuning(at):
    "Some steps of fine-tuning at the profile's settings, with all that surrounds them"
    network, processor = _load(at)
    return _finetuning(at, network, processor, bfloat16=_is_half(at), **at["tuning"])


@way
def finetuning_other_precision(at):
    return finetuning(_in_other_precision(at))


@way
def finetuning_large_vocabulary(at):
    "The same for a wider model with Qwen's vocabulary, on its text"
    from transformers import AutoConfig, Qwen3VLForConditionalGeneration

    _, processor = _load(at)
    config = AutoConfig.from_pretrained(at["folder"])
    text, sizes = config.text_config, dict(hidden_size=512, intermediate_size=1024)
    for name, value in (sizes | dict(num_hidden_layers=12, vocab_size=151936)).items():
        setattr(text, name, value)
    config.vision_config.out_hidden_size = text.hidden_size
    torch.manual_seed(0)
    how = dict(attn_implementation=at["attention"])
    network = Qwen3VLForConditionalGeneration._from_config(config, **how)
    how = dict(bfloat16=_is_half(at)) | at["tuning"]
    return _finetuning(at | dict(steps=1), network, processor, **how)


# evaluation


@way
def evaluation(at):
    network, processor = _load(at, at["precision"])
    how = dict(batch_size=at["batch_size"], cot=at["cot"], progress=False)
    return lambda: il.evaluate(network, processor, at["tasks"], at["benchmarks"], **how)


@way
def evaluation_other_precision(at):
    return evaluation(_in_other_precision(at))


@way
def one_by_one(at):
    "One question at a time"
    return evaluation(at | dict(batch_size=1))


# Wanda


@way
def wanda(at):
    "As the stage calls it: samples sorted by length, where the build does so"
    network, processor = _load(at)
    collate = il.Collator(processor, max_length=512, **_turns(1))
    rows = _by_length(collate, _samples(at, "calibration", at["samples"]))
    batches = list(il.calibration_batches(rows, processor))
    return lambda: il.wanda_(copy.deepcopy(network), batches)


@way
def wanda_one_by_one(at):
    """Wanda as its authors run it: one sample at a time, each layer called twice directly

    They take what enters the first layer from the model and carry it on themselves, so DeepStack's
    additions between layers are missing.
    """
    network, processor = _load(at)
    batches = _prompts(at, processor, size=1)
    return lambda: _authors_wanda(copy.deepcopy(network), batches)


class _Caught(Exception):
    pass


@torch.inference_mode()
def _catch(network, layers, batches):
    "What enters the first layer, for each sample"
    caught = []

    def keep(module, args, kwargs):
        caught.append((args[0] if args else kwargs["hidden_states"], kwargs))
        raise _Caught

    hook = layers[0].register_forward_pre_hook(keep, with_kwargs=True)
    for batch in batches:
        with contextlib.suppress(_Caught):
            network(**batch, use_cache=False)
    hook.remove()
    return [(x, {k: v for k, v in kw.items() if k != "hidden_states"}) for x, kw in caught]


@torch.inference_mode()
def _authors_wanda(network, batches):
    layers = il.find_decoder(network).layers
    states = _catch(network, layers, batches)
    for layer in layers:
        linears = [m for m in layer.modules() if isinstance(m, torch.nn.Linear)]
        squares = {m: torch.zeros(m.in_features) for m in linears}

        def add(m, args, squares=squares):
            squares[m] += args[0].float().pow(2).flatten(0, -2).sum(0)

        hooks = [m.register_forward_pre_hook(add) for m in linears]
        for x, kwargs in states:
            layer(x, **kwargs)
        for hook in hooks:
            hook.remove()
        for m in linears:
            score = (m.weight.abs() * squares[m].sqrt()).view(len(m.weight), -1, 4)
            lowest = score.argsort(-1)[..., :2]
            m.weight.view_as(score).scatter_(-1, lowest, 0.0)
        states = [(_first(layer(x, **kwargs)), kwargs) for x, kwargs in states]


def _first(out):
    return out[0] if isinstance(out, tuple) else out


# SLEB


def _answered(at, processor):
    collate = il.Collator(processor, max_length=512, **_turns(5))
    rows = _by_length(collate, _samples(at, "calibration", at["searched"]))
    return [collate(rows[k : k + 16]) for k in range(0, len(rows), 16)]


@way
def sleb(at, naive=False):
    network, processor = _load(at)
    batches, few = _answered(at, processor), 2 / len(il.find_decoder(network).layers)
    how = dict(naive=naive, progress=False)
    return lambda: il.sleb_search(copy.deepcopy(network).eval(), batches, few, **how)


@way
def sleb_all_layers(at):
    "Every candidate through all layers, as SLEB's authors search"
    return sleb(at, naive=True)


# selection


@way
def selection(at):
    "A plan for a decoder of very many layers"
    import numpy as np

    draw, L = np.random.default_rng(0), at.get("layers", 36_000)
    similar = {span: draw.uniform(0.5, 1, (1, L - span)) for span in (1, 2, 3)}
    scores = il.LayerScores(similar, L, False, {})
    return lambda: il.make_plan(scores, 0.2)


def peak_of_tensors(run):
    "The largest number of MiB that a call holds in tensors beyond those there before"
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    held = highest = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest / 2**20


def main():
    "Answer requests until standard input ends: prepare a way, time it, or measure its memory"
    answers, ready = os.fdopen(os.dup(1), "w"), {}
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(1)
    for line in sys.stdin:
        asked = json.loads(line)
        name = asked["way"]
        if asked["do"] == "prepare":
            ready = {name: MADE[name](asked["at"])}
            said = {}
        elif asked["do"] == "time":
            began, clock = time.process_time(), time.perf_counter()
            ready[name]()
            said = dict(cpu_s=time.process_time() - began, wall_s=time.perf_counter() - clock)
        else:
            said = dict(peak_mib=peak_of_tensors(ready[name]))
        print(json.dumps(said), file=answers, flush=True)


if __name__ == "__main__":
    main()

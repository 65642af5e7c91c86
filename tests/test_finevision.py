"""Data in FineVision's layout, read by the same loader as from the hub.

The tests cover drawing, counting, keeping, resuming and the messages on failure.
"""

import copy
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import weakref
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interlace.core.errors import BadInput
from interlace.data import finevision
from interlace.data.conversations import (
    IGNORE,
    Collator,
    calibration_batches,
    fitting,
    load_samples,
    train_entry,
    train_set,
)
from interlace.data.finevision import (
    account,
    flaw,
    repository,
    rows_of,
    shuffled,
    write_finevision,
)
from interlace.nano.model import TEMPLATE, nano_processor
from interlace.testing.finevision import FLAWS, LIKE, RATINGS, write_finevision_like

TURNS = [
    dict(user="What is this?", assistant="red circle"),
    dict(user="And where?", assistant="top left"),
    dict(user="Sure?", assistant="yes"),
]


@pytest.fixture(scope="module")
def like(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "like"
    write_finevision_like(folder)
    return folder


@pytest.fixture(scope="module")
def processor():
    return nano_processor()


@pytest.fixture
def mine(like, tmp_path):
    return Path(shutil.copytree(like, tmp_path / "mine"))


def write(out, data, **settings):
    return write_finevision(out, data, **dict(fraction=1.0, progress=False) | settings)


def rows(folder):
    return list(load_samples(train_set(folder)))


def raw(data, subset):
    return [
        r
        for f in sorted(Path(data, subset).glob("*.parquet"))
        for r in pq.read_table(f).to_pylist()
    ]


def content(folder):
    return {
        f.relative_to(folder).as_posix(): f.read_bytes()
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }


def test_the_columns_are_finevisions(like):
    schema = pq.read_schema(next((like / "chartqa").glob("*.parquet")))
    assert schema.names == [
        "images",
        "texts",
        "source",
        *(f"{r}_{k}" for r in RATINGS for k in ("ratings", "min")),
    ]
    assert {"chartqa", "textvqa", "scienceqa"} <= set(repository(like).rows) == set(LIKE)


def test_a_path_that_datasets_reads_as_a_pattern(like, tmp_path):
    "Not that of a repository, but its files may have such names"
    with pytest.raises(BadInput, match=r"its path holds \[, which datasets reads as a pattern"):
        write(tmp_path / "out", shutil.copytree(like, tmp_path / "mine[1]"))
    mine = Path(shutil.copytree(like, tmp_path / "mine"))
    (mine / "README.md").unlink()
    for file in mine.glob("chartqa/*"):
        file.rename(file.with_stem(f"{file.stem}[?]"))
    write(tmp_path / "of mine", mine)
    write(tmp_path / "of like", like)
    of_mine, of_like = (
        sorted(str(r["texts"]) for r in rows(tmp_path / f"of {name}")) for name in ("mine", "like")
    )
    assert of_mine == of_like


def test_numbers_add_up_and_pictures_are_untouched(like, tmp_path):
    m = write(tmp_path, like)
    for n, s in m["subsets"].items():
        assert s["asked"] == s["train"] + s["skipped"] + s["broken"] + s["missing"] and s[
            "rows"
        ] == s["asked"] == len(raw(like, n))
    assert (
        m["totals"]["taken"]
        == train_entry(m)["rows"]
        == train_entry(tmp_path / "manifest.json")["rows"]
        == len(rows(tmp_path))
    )
    source = {n: raw(like, n) for n in LIKE}
    for s in rows(tmp_path):
        subset, shard, i = s["id"].split("/")
        r = source[subset][int(i) + 6 * int(shard.split("-")[1])]
        assert (
            s["images"] == r["images"]
            and s["texts"] == r["texts"][:3]
            and s["source"] == r["source"]
        )
    assert (
        m["subsets"]["albums"]["pictures"] > 12
        and m["subsets"]["words_only"]["pictures"] == 0
        and m["subsets"]["words_only"]["train"] == 12
        and m["subsets"]["empty"]["rows"] == 0
    )


def test_broken_rows_are_listed_and_not_replaced(like, tmp_path):
    m = write(tmp_path, like, subsets=["flawed"], order="first")
    assert m["subsets"]["flawed"] == m["subsets"]["flawed"] | dict(
        train=12 - 5, skipped=1, broken=4
    )
    assert [(b["file"], b["row"]) for b in m["broken"]] == [
        ("train-00000-of-00002.parquet", FLAWS.index(f))
        for f in ("broken", "missing", "silent", "unanswered")
    ]
    assert [b["reason"].split(" (")[0] for b in m["broken"]] == [
        "image 1: the image cannot be decoded",
        "image 1 is missing",
        "no conversation",
        "turn 1: the assistant says nothing",
    ]
    assert "0x" not in json.dumps(m)  # no address in memory
    assert (
        write(tmp_path / "all", like, subsets=["flawed"], max_images=5)["subsets"]["flawed"][
            "skipped"
        ]
        == 0
    )


def test_a_path_in_the_data_is_not_opened(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"")
    assert (
        flaw(dict(images=[dict(bytes=None, path=str(tmp_path / "secret.png"))], texts=TURNS))
        == "image 1 is missing"
        == flaw(dict(images=[None], texts=TURNS))
    )


def test_one_per_cent_is_at_least_one(like, tmp_path):
    m = write(tmp_path, like, fraction=0.01)
    assert {n: s["asked"] for n, s in m["subsets"].items()} == {n: int(n != "empty") for n in LIKE}


def test_first_is_the_first_n(like, tmp_path):
    write(tmp_path, like, order="first", fraction=0.6, subsets=["street", "chartqa"])
    for n in ("street", "chartqa"):
        assert [s["texts"] for s in rows(tmp_path) if s["id"].startswith(n)] == [
            r["texts"][:3] for r in raw(like, n)[:7]
        ]


def test_the_shuffle_is_seeded(like, tmp_path):
    a, b, c = (
        write(tmp_path / x, like, fraction=0.5, seed=s, subsets=["street", "chartqa"], buffer=3)
        for x, s in (("a", 42), ("b", 42), ("c", 43))
    )
    assert (
        a == b
        and content(tmp_path / "a") == content(tmp_path / "b")
        and train_entry(a) != train_entry(c)
    )
    for n in (1, 4, 100):
        assert sorted(shuffled(range(50), n, random.Random(1))) == list(range(50))
    assert (
        list(shuffled(range(50), 1, random.Random(1)))
        == list(range(50))
        != list(shuffled(range(50), 9, random.Random(1)))
    )


def test_workers_change_nothing(like, tmp_path):
    names = ["chartqa", "flawed", "albums"]
    alone, together = (
        write(tmp_path / str(n), like, workers=n, subsets=names, domains=["ScienceQA"])
        for n in (1, 2)
    )
    assert alone == together and content(tmp_path / "1") == content(tmp_path / "2")


def test_a_domain_is_as_large_as_the_mixture(like, tmp_path):
    m = write(
        tmp_path,
        like,
        fraction=0.25,
        domains=["ChartQA", "TextVQA"],
        subsets=["street", "albums", "words_only"],
    )
    d = json.loads((tmp_path / "ChartQA" / "manifest.json").read_text())
    assert (
        d["subsets"]["chartqa"]["asked"] == m["totals"]["asked"] == 9
        and d["fraction"] == 0.75
        and set(d["files"]) == {"train"}
    )
    assert (
        write(tmp_path, like, domains=["TextVQA"])
        and json.loads((tmp_path / "TextVQA" / "manifest.json").read_text())["subsets"]["textvqa"][
            "train"
        ]
        == 12
    )  # all there are
    assert {s["id"].split("/")[0] for s in rows(tmp_path / "TextVQA")} == {"textvqa"}


def test_calibration_is_a_seeded_tenth_of_the_training_set(like, tmp_path):
    m = write(tmp_path / "a", like)
    write(tmp_path / "b", like, seed=7)
    train, a, b = (
        ({s["id"]: s for s in load_samples(p)})
        for p in (
            train_set(tmp_path / "a"),
            tmp_path / "a" / "calibration.parquet",
            tmp_path / "b" / "calibration.parquet",
        )
    )
    assert (
        len(a)
        == m["files"]["calibration.parquet"]["rows"]
        == round(0.1 * len(train))
        == sum(s["calibration"] for s in m["subsets"].values())
    )
    assert (
        all(train[i] == s for i, s in a.items())
        and set(a) != set(b)
        and len({i.split("/")[0] for i in a}) > 3
    )


def test_a_killed_run_reads_no_subset_twice(like, tmp_path, monkeypatch):
    names, read, rows_of_ = ["chartqa", "albums", "street", "flawed"], [], finevision.rows_of

    def counted(repo, subset, *rest):
        if subset == "street" and read.count("street") == 0:
            read.append(subset)
            raise KeyboardInterrupt
        read.append(subset)
        return rows_of_(repo, subset, *rest)

    monkeypatch.setattr(finevision, "rows_of", counted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a", like, subsets=names)
    assert (
        sorted(p.name for p in (tmp_path / "a" / "train").iterdir())
        == ["albums.parquet", "chartqa.parquet"]
        and not (tmp_path / "a" / "manifest.json").exists()
    )
    (tmp_path / "a" / "train" / "street.parquet.1.part").write_bytes(
        b"half of"
    )  # what a kill -9 leaves
    (tmp_path / "a" / "train" / "flawed.parquet").write_bytes(b"PAR1 and no more")
    m = write(tmp_path / "a", like, subsets=names)
    assert read == ["chartqa", "albums", "street", "street", "flawed"]
    assert m == write(tmp_path / "b", like, subsets=names) and content(tmp_path / "a") == content(
        tmp_path / "b"
    )
    before = len(read)
    write(
        tmp_path / "a", like, subsets=names, calibration=0.5
    )  # another calibration set is no reason to read again
    assert len(read) == before and len(load_samples(tmp_path / "a" / "calibration.parquet")) > 1


@pytest.mark.parametrize(
    "change",
    [
        dict(seed=1),
        dict(order="first"),
        dict(max_images=2),
        dict(turns=1),
        dict(fraction=0.5),
        dict(buffer=2),
    ],
)
# nothing of the earlier run is left
def test_other_settings_start_anew(change, like, tmp_path):
    write(tmp_path / "a", like, subsets=["albums", "street"])
    assert write(tmp_path / "a", like, subsets=["albums"], **change) == write(
        tmp_path / "b", like, subsets=["albums"], **change
    )
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_other_content_starts_anew(mine, tmp_path):
    first = write(tmp_path / "a", mine, subsets=["street"])
    write_finevision_like(mine, ["street"], seed=5)
    assert train_entry(write(tmp_path / "a", mine, subsets=["street"])) != train_entry(first)


def test_an_earlier_set_does_not_stand_in_the_way(like, tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"of nano")
    write(tmp_path, like, subsets=["street"])
    assert train_set(tmp_path).name == "train" and len(rows(tmp_path)) == 12
    pq.write_table(pa.table(dict(mine=[1])), tmp_path / "train" / "mine.parquet")
    with pytest.raises(BadInput, match="mine.parquet: not written by this project"):
        write(tmp_path, like, subsets=["street"])
    assert (tmp_path / "train" / "mine.parquet").exists()


def test_row_counts_come_from_the_card_or_else_the_footers(mine, tmp_path):
    assert repository(mine).bytes["chartqa"] > 0
    card = (mine / "README.md").read_text()
    (mine / "README.md").write_text(card.replace("num_examples: 12", "num_examples: 20", 1))
    m = write(tmp_path / "a", mine, subsets=["chartqa"])
    assert (
        m["subsets"]["chartqa"]["asked"] == 20
        and m["subsets"]["chartqa"]["missing"] == 8
        and m["subsets"]["chartqa"]["train"] == 12
    )
    (mine / "README.md").write_text(
        "---\nconfigs:" + card.split("configs:")[1]
    )  # subsets without sizes
    assert repository(mine).rows == {n: 12 if LIKE[n] else 0 for n in LIKE}
    (mine / "README.md").unlink()  # folders only
    assert repository(mine).rows == {n: 12 if LIKE[n] else 0 for n in LIKE}
    assert write(tmp_path / "b", mine, subsets=["chartqa"])["subsets"]["chartqa"]["train"] == 12


def test_rows_are_written_as_they_come(like, tmp_path, monkeypatch):
    "The number of rows held in memory is bounded, whatever the size of a subset"

    class Images(list):
        pass

    class Held:
        pass

    alive, most, r = weakref.WeakSet(), [0], raw(like, "street")[0]

    def many(repo, subset, *rest):
        for i in range(400):
            images = Images(r["images"])
            images.held = Held()
            alive.add(images.held)
            most[0] = max(most[0], len(alive))
            yield ("f.parquet", i), dict(r, images=images)

    monkeypatch.setattr(finevision, "rows_of", many)
    settings = finevision.DrawSettings(order="first", buffer=10)
    job = finevision._SubsetJob(
        repository(like), "street", tmp_path / "many.parquet", 400, settings
    )
    assert (
        finevision._write_subset(job)["count"]["taken"] == 400
        and pq.read_metadata(tmp_path / "many.parquet").num_row_groups == 13
    )
    assert finevision._AT_ONCE <= most[0] <= finevision._AT_ONCE + 2


def test_only_what_is_drawn_is_read(mine):
    "Taking the first n rows never opens a second, unreadable file"
    (mine / "street" / "train-00001-of-00002.parquet").write_bytes(b"broken")
    got = rows_of(repository(mine), "street", "first")
    assert [next(got)[0][1] for _ in range(6)] == list(range(6))
    with pytest.raises(
        BadInput, match="street, train-00001-of-00002.parquet: not readable as parquet"
    ):
        next(got)


@pytest.mark.parametrize(
    "settings, why",
    [
        (dict(data="FineVision"), "FineVision: neither a folder nor a repository"),
        (dict(data="owner/name@main"), "owner/name@main: the hub cannot be reached"),
        (dict(subsets=["chartQA"]), "no subset 'chartQA'; there are albums"),
        (dict(domains=["POPE"]), "no subset 'pope' for the domain 'POPE'"),
        (dict(fraction=0), "fraction 0: it must lie"),
        (dict(calibration=1.5), "calibration 1.5"),
        (dict(order="last"), "order 'last'"),
        (dict(max_images=-1), "max_images -1"),
        (dict(turns=0), "turns 0"),
        (dict(buffer=0), "buffer 0"),
        (dict(workers=0), "workers 0"),
        (dict(subsets=["empty"]), "of 0 rows drawn none can be taken"),
    ],
)
def test_wrong_settings(settings, why, like, tmp_path):
    with pytest.raises(BadInput, match=re.escape(why)) as e:
        write(tmp_path / "out", **dict(data=like) | settings)
    assert "\n" not in str(e.value)


def test_broken_repositories(mine, tmp_path):
    for f in (mine / "textvqa").glob("*.parquet"):
        pq.write_table(pq.read_table(f).drop_columns("images"), f)
    card = (mine / "README.md").read_text()
    (mine / "README.md").write_text("---\nconfigs:" + card.split("configs:")[1])
    with pytest.raises(BadInput, match="subset textvqa: column 'images' is missing"):
        write(tmp_path / "a", mine, subsets=["textvqa"])
    for f in (mine / "street").glob("*.parquet"):
        f.write_bytes(f.read_bytes()[:100])
    with pytest.raises(BadInput, match="street.*not readable as parquet"):
        write(tmp_path / "a", mine, subsets=["street"])
    (mine / "README.md").write_text("---\nconfigs: [\n---\n")
    with pytest.raises(BadInput, match="correct the repository"):
        repository(mine)
    (tmp_path / "none").mkdir()
    with pytest.raises(BadInput, match="no subsets in it"):
        repository(tmp_path / "none")


def test_a_disk_that_is_full(like, tmp_path, monkeypatch):
    usage, full = shutil.disk_usage, []
    monkeypatch.setattr(finevision.shutil, "disk_usage", lambda p: usage(p)._replace(free=1_000))
    with pytest.raises(BadInput, match=r"GiB are needed and 0.0 GiB are free"):
        write(tmp_path / "a", like)
    monkeypatch.setattr(finevision.shutil, "disk_usage", usage)
    table = pq.ParquetWriter.write_table

    def stop(self, *a, **k):
        if full:
            raise OSError(28, "No space left on device")
        full.append(1)
        return table(self, *a, **k)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", stop)
    with pytest.raises(
        BadInput, match="albums.parquet: the disk is full; free some space and run again"
    ):
        write(tmp_path / "a", like, subsets=["street", "albums"])
    assert [f.name for f in (tmp_path / "a" / "train").iterdir()] == ["street.parquet"]


# mapped from disk
def test_loading_a_folder(like, tmp_path):
    write(tmp_path, like)
    d = load_samples(train_set(tmp_path))
    assert d.cache_files and [s["id"] for s in d] == [
        s["id"]
        for f in sorted((tmp_path / "train").glob("*.parquet"))
        if account(f)["rows"]
        for s in load_samples(f)
    ]
    assert max(len(s["images"]) for s in load_samples(train_set(tmp_path), 1)) == 1
    (tmp_path / "train" / "street.parquet").write_bytes(b"broken")
    with pytest.raises(BadInput, match="street.parquet: not a readable parquet file"):
        load_samples(train_set(tmp_path))
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(BadInput, match="no training set"):
        train_set(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(BadInput, match="no parquet file in it"):
        load_samples(train_set(tmp_path))


def test_what_is_too_long_is_left_out_and_the_rest_collates(like, tmp_path, processor):
    write(tmp_path, like)
    d = load_samples(train_set(tmp_path))
    fit, left_out = fitting(d, processor, 2, 512)
    assert (
        left_out == [f"flawed/train-00000-of-00002/{FLAWS.index('long')}"]
        and len(fit) == len(d) - 1
    )
    collate = Collator(processor, 2, 512)
    for k in range(0, len(fit), 16):
        assert (
            (collate([fit[i] for i in range(k, min(k + 16, len(fit)))])["labels"] != IGNORE)
            .any(1)
            .all()
        )
    with pytest.raises(
        BadInput,
        match=f"{left_out[0]}, of .* tokens, has its images and no answer within it",
    ):
        collate([s for s in d if s["id"] == left_out[0]])
    assert fitting(fit, processor, 2, 512) == (fit, [])
    with pytest.raises(BadInput, match="no sample has an answer within it"):
        fitting(fit, processor, 2, 4)


def test_fitting_agrees_with_the_collator_at_every_length(like, tmp_path, processor):
    "The cheap bound never keeps a sample that the collator refuses, with or without images"
    write(tmp_path, like, subsets=["albums", "words_only", "chartqa"])
    d = list(load_samples(train_set(tmp_path)))[::3]
    for n in (20, 45, 60, 80, 120):
        fits = []
        for s in d:
            try:
                Collator(processor, 2, n)([s])
                fits.append(s["id"])
            except BadInput:
                pass
        if fits:
            assert [s["id"] for s in fitting(d, processor, 2, n)[0]] == fits


def beginning(processor):
    "A copy of a processor whose tokenizer puts a token before every text"
    from tokenizers.processors import TemplateProcessing

    processor = copy.deepcopy(processor)
    tokenizer = getattr(processor, "tokenizer", processor)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.bos_token_id)]
    )
    return processor


@pytest.mark.parametrize("writes", [True, False])
def test_the_token_that_begins_a_text_stands_once(writes, like, processor):
    processor = beginning(processor)
    processor.chat_template = ("<|endoftext|>" if writes else "") + TEMPLATE
    bos, samples = (
        processor.tokenizer.bos_token_id,
        [
            dict(images=raw(like, "street")[0]["images"], texts=TURNS),
            dict(images=[], texts=TURNS[:1]),
        ],
    )
    processor.tokenizer.pad_token = "<|im_start|>"  # not the one that is counted
    for batch in (Collator(processor, 5)(samples), *calibration_batches(samples, processor)):
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            assert (ids[mask.bool()] == bos).nonzero().flatten().tolist() == [0]
    labels = Collator(processor, 5)(samples)["labels"]
    assert (
        processor.tokenizer.decode(labels[0][labels[0] != IGNORE])
        == "red circle<|im_end|>top left<|im_end|>yes<|im_end|>"
    )


def test_a_text_models_template_has_the_last_word(processor):
    tokenizer = beginning(processor.tokenizer)
    for start in ("<|endoftext|>", ""):
        tokenizer.chat_template = start + TEMPLATE
        for batch in (
            Collator(tokenizer, 5)([dict(images=[], texts=TURNS)]),
            *calibration_batches([dict(images=[], texts=TURNS)], tokenizer),
        ):
            assert batch["input_ids"][0].tolist().count(tokenizer.bos_token_id) == bool(start)


SHA = "a" * 40


def hub(folder):
    """A local stand-in for the hub

    `owner/like` is a local folder, `owner/gated` is gated, and nothing else exists.
    """
    files = {f.relative_to(folder).as_posix(): f for f in sorted(folder.rglob("*")) if f.is_file()}

    def of(n):
        return (
            dict(
                type="file",
                path=n,
                size=files[n].stat().st_size,
                oid=hashlib.sha1(n.encode()).hexdigest(),
            )
            if n in files
            else dict(type="directory", path=n, size=0, oid="0" * 40)
        )

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *a):
            pass

        def reply(self, body=b"", status=200, **headers):
            if not isinstance(body, bytes):
                body, headers = (
                    json.dumps(body).encode(),
                    headers | {"Content-Type": "application/json"},
                )
            self.send_response(status)
            for k, v in (dict(Content_Length=len(body)) | headers).items():
                self.send_header(k.replace("_", "-"), str(v))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self):
            url, posted = (
                unquote(urlparse(self.path).path),
                self.rfile.read(int(self.headers.get("Content-Length") or 0)),
            )
            if "owner/gated" in url:
                return self.reply(status=403, X_Error_Code="GatedRepo")
            if "owner/like" not in url:
                return self.reply(status=401, X_Error_Code="RepoNotFound")
            if "/v9" in url:
                return self.reply(status=404, X_Error_Code="RevisionNotFound")
            if re.fullmatch(r"/api/datasets/owner/like(/revision/[^/]+)?", url):
                return self.reply(
                    dict(
                        id="owner/like",
                        sha=SHA,
                        private=False,
                        tags=[],
                        siblings=[dict(rfilename=n) for n in files],
                    )
                )
            if m := re.fullmatch(r"/api/datasets/owner/like/tree/[^/]+/?(.*)", url):
                inside, deep = (
                    [n for n in files if n.startswith(m[1] + "/" if m[1] else "")],
                    len(Path(m[1]).parts),
                )
                if not inside:
                    return self.reply(status=404, X_Error_Code="EntryNotFound")
                return self.reply(
                    [
                        of(n)
                        for n in (
                            inside
                            if "recursive=true" in self.path.lower()
                            else dict.fromkeys("/".join(n.split("/")[: deep + 1]) for n in inside)
                        )
                    ]
                )
            if "/paths-info/" in url:
                return self.reply(
                    [
                        of(n)
                        for n in (
                            json.loads(posted)["paths"]
                            if posted[:1] == b"{"
                            else parse_qs(posted.decode()).get("paths", [])
                        )
                        if any(f == n or f.startswith(n + "/") for f in files)
                    ]
                )
            if (m := re.fullmatch(r"/datasets/owner/like/resolve/[^/]+/(.+)", url)) and m[
                1
            ] in files:
                body, about = (
                    files[m[1]].read_bytes(),
                    dict(ETag=f'"{of(m[1])["oid"]}"', X_Repo_Commit=SHA, Accept_Ranges="bytes"),
                )
                if r := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
                    a, b = int(r[1]), int(r[2] or len(body) - 1)
                    return self.reply(
                        body[a : b + 1], 206, Content_Range=f"bytes {a}-{b}/{len(body)}", **about
                    )
                return self.reply(body, **about)
            self.reply(status=404, X_Error_Code="EntryNotFound")

        do_HEAD = do_POST = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


CHILD = """
import json, sys
from interlace.data.finevision import repository, write_finevision
from interlace.core.errors import BadInput
said = []
for name in ('owner/none', 'owner/gated', 'owner/like@v9'):
    try: repository(name)
    except BadInput as e: said.append(str(e))
subsets = ['chartqa', 'counting(objects)', 'flawed', 'empty']
m = write_finevision(sys.argv[1], 'owner/like@v1', fraction=.5, subsets=subsets,
                     domains=['ScienceQA'], progress=False)
print(json.dumps([said, m]))
"""


def test_over_http_as_from_a_folder(like, tmp_path):
    "A local server with the hub's protocol yields the same files as the folder"
    server = hub(like)
    env = os.environ | dict(
        HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}",
        HF_HUB_OFFLINE="0",
        HF_DATASETS_OFFLINE="0",
        HF_HOME=str(tmp_path / "home"),
        NO_PROXY="127.0.0.1",
        HF_HUB_DISABLE_TELEMETRY="1",
        PYTHONPATH=os.pathsep.join(p for p in sys.path if p),
    )
    try:
        ran = subprocess.run(
            [sys.executable, "-c", CHILD, str(tmp_path / "http")],
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        server.shutdown()
    assert ran.returncode == 0, ran.stderr[-3000:]
    said, m = json.loads(ran.stdout.splitlines()[-1])
    assert [s.split(",")[0].split(":", 1)[1].strip() for s in said] == [
        "no such repository",
        "access has to be granted: accept its terms on its page at huggingface.co",
        "no such revision; take one that its page at huggingface.co lists",
    ]
    local = write(
        tmp_path / "local",
        like,
        fraction=0.5,
        subsets=["chartqa", "counting(objects)", "flawed", "empty"],
        domains=["ScienceQA"],
    )
    assert m["revision"] == SHA and all(
        m[k] == local[k] for k in ("subsets", "files", "broken", "totals")
    )
    assert [s["id"] for s in rows(tmp_path / "http")] == [s["id"] for s in rows(tmp_path / "local")]


def _write_split(file, rows, schema):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema.arrow_schema), file)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    "Training splits of two benchmarks in their published columns, and a test split beside one"
    from datasets import Features, Image, List, Value

    folder = tmp_path_factory.mktemp("splits")
    read = Features(image=Image(), question=Value("string"), answers=List(Value("string")))
    rows = [
        dict(image=_png(k), question=f"What does sign {k} say?", answers=["stop", "stop", "STOP"])
        for k in range(3)
    ]
    _write_split(folder / "TextVQA" / "data" / "train-00000.parquet", rows, read)
    science = Features(
        image=Image(),
        question=Value("string"),
        choices=List(Value("string")),
        answer=Value("int8"),
        hint=Value("string"),
    )
    rows = [
        dict(
            image=_png(k) if k else None,
            question="Which?",
            choices=["a spoon", "a compass"],
            answer=1,
            hint="",
        )
        for k in range(4)
    ]
    _write_split(folder / "ScienceQA" / "train.parquet", rows, science)
    _write_split(folder / "ScienceQA" / "test.parquet", rows, science)
    return folder


def _png(k):
    from io import BytesIO

    from PIL import Image

    Image.new("RGB", (8 + k, 8), (40 * k, 90, 10)).save(out := BytesIO(), "PNG")
    return dict(bytes=out.getvalue(), path=None)


def test_domains_from_the_benchmarks_own_training_splits(like, splits, tmp_path):
    domains = ["TextVQA", "ScienceQA"]
    how = dict(domains=domains, order="first", domain_source=str(splits), progress=False)
    write_finevision(tmp_path / "out", like, 0.1, **how)
    said = {}
    for domain in domains:
        samples = load_samples(train_set(tmp_path / "out" / domain), None)
        said[domain] = [(s["texts"][0]["user"], s["texts"][0]["assistant"]) for s in samples]
        assert all(len(s["images"]) == 1 for s in samples)
        assert len({s["id"] for s in samples}) == len(samples)
    # every distinct answer is a sample, and rows without an image are left out
    signs = [f"What does sign {k} say?" for k in range(3)]
    assert said["TextVQA"] == [(q, a) for q in signs for a in ("stop", "STOP")]
    assert said["ScienceQA"] == [("Which?\nA) a spoon\nB) a compass", "B) a compass")] * 3
    manifest = json.loads((tmp_path / "out" / "ScienceQA" / "manifest.json").read_text())
    assert manifest["totals"] | dict(taken=3, skipped=1, broken=0) == manifest["totals"]
    before = (tmp_path / "out" / "TextVQA" / "train" / "TextVQA.parquet").stat().st_mtime_ns
    write_finevision(tmp_path / "out", like, 0.1, **how)
    after = (tmp_path / "out" / "TextVQA" / "train" / "TextVQA.parquet").stat().st_mtime_ns
    assert after == before  # a finished set stays


@pytest.mark.parametrize(
    ("domain", "folder", "said"),
    [
        ("AI2D", ".", "only ChartQA, TextVQA, ScienceQA have a training split here"),
        ("ChartQA", ".", "no file train.parquet or train-"),
        ("TextVQA", "wrong", "column 'question' is missing; TextVQA's schema has image and"),
    ],
)
def test_a_training_split_that_is_not_there_is_one_line(
    like, splits, tmp_path, domain, folder, said
):
    wrong = splits / "wrong" / "TextVQA"
    wrong.mkdir(parents=True, exist_ok=True)
    shutil.copy(splits / "ScienceQA" / "train.parquet", wrong / "train.parquet")
    table = pq.read_table(wrong / "train.parquet").drop_columns(["question"])
    pq.write_table(table, wrong / "train.parquet")
    with pytest.raises(BadInput, match=said):
        source = str(splits / folder)
        how = dict(domains=[domain], domain_source=source, progress=False)
        write_finevision(tmp_path / "out", like, 0.1, **how)


def test_broken_rows_of_a_training_split_are_counted_with_their_place(like, splits, tmp_path):
    table = pq.read_table(splits / "ScienceQA" / "train.parquet").to_pylist()
    table[1]["answer"], table[2]["answer"], table[3]["choices"] = 4, -1, None
    place = tmp_path / "copies" / "ScienceQA" / "train.parquet"
    place.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([*table, table[0] | dict(image=_png(1))]), place)
    how = dict(domains=["ScienceQA"], domain_source=str(tmp_path / "copies"), progress=False)
    write_finevision(tmp_path / "out", like, 0.1, **how)
    manifest = json.loads((tmp_path / "out" / "ScienceQA" / "manifest.json").read_text())
    told = [(row["row"], row["reason"]) for row in manifest["broken"]]
    assert sorted(told) == [
        (1, "its answer is number 4 of 2 options"),
        (2, "its answer is number -1 of 2 options"),
        (3, "its answer is number 1 of 0 options"),
    ]
    assert manifest["totals"]["taken"] == 1 and manifest["totals"]["skipped"] == 1


def test_a_training_split_on_the_hub_is_its_train_files(monkeypatch):
    from types import SimpleNamespace

    names = ("README.md", "data/train-00000-of-00002.parquet", "data/val-00000-of-00001.parquet")
    siblings = [SimpleNamespace(rfilename=name) for name in names]
    about = SimpleNamespace(sha="c0ffee", siblings=siblings)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: about)
    monkeypatch.setattr(finevision, "_count_in_files", lambda repo, subset: (7, 100))
    repo = finevision.train_split("hub", "ChartQA")
    assert (repo.name, repo.revision, repo.rows) == (
        "HuggingFaceM4/ChartQA",
        "c0ffee",
        {"ChartQA": 7},
    )
    place = "hf://datasets/HuggingFaceM4/ChartQA@c0ffee/data/train-00000-of-00002.parquet"
    assert repo.files == {"ChartQA": [place]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            dict(domain_source="hub"),
            "domain_source hub: nano has no benchmarks with training splits",
        ),
        (
            dict(domain_source="hub", data="a/b", domains=["AI2D"]),
            "AI2D has no training split here",
        ),
        (dict(mmbench="x/a.tsv"), "the nano benchmarks have their own"),
        (dict(models=["."]), "models .: no model in that folder"),
        (dict(models=["../x"]), "models ../x: no such model folder"),
        (dict(mmbench="x/a.tsv", benchmark_data="hub"), "no such file; fetch it"),
        (dict(mmbench="x/a.tsv", benchmarks=["AI2D"]), "benchmarks lacks MMBench"),
    ],
)
def test_a_profile_whose_sources_are_not_there_is_one_line(changes, said):
    from interlace.core.profiles import load_profile
    from interlace.reproduction.pipeline import check_profile

    settings = load_profile("nano") | dict(domains=[], reasoning_questions=0) | changes
    with pytest.raises(BadInput, match=said):
        check_profile(settings)


def test_a_models_folder_is_relative_to_the_project(monkeypatch, tmp_path):
    from interlace.core.profiles import load_profile
    from interlace.reproduction.pipeline import check_profile

    monkeypatch.setenv("INTERLACE_ROOT", str(tmp_path))
    (tmp_path / "nbs" / "my" / "other").mkdir(parents=True)
    (tmp_path / "nbs" / "my" / "other" / "config.json").write_text("{}")
    (tmp_path / "my" / "models" / "m").mkdir(parents=True)
    (tmp_path / "my" / "models" / "m" / "config.json").write_text("{}")
    settings = load_profile("nano", Path(__file__).parents[1] / "settings.ini") | dict(domains=[])
    monkeypatch.chdir(tmp_path / "nbs")
    check_profile(settings | dict(models=["my/models/m"]))
    with pytest.raises(BadInput, match="models ./my/other: no such model folder"):
        check_profile(settings | dict(models=["./my/other"]))
    assert Path.cwd() == tmp_path / "nbs"

"""A small repository in FineVision's layout, for tests, rehearsals and the chapter about it."""

# Filled by the nano world, under names of real subsets; it also reproduces the irregularities of
# real data.

import io
import random
from pathlib import Path

from interlace.core.errors import BadInput
from interlace.nano.samples import conversation

RATINGS = ("relevance", "image_correspondence", "visual_dependency", "formatting")


LIKE = {  # subset -> families of the nano world in it
    "chartqa": ("chart_bars", "chart_lines", "chart_pies"),
    "textvqa": ("signs", "text_words"),
    "scienceqa": ("science_magnets", "science_balance", "science_circuits"),
    "diagrams": ("diagrams",),
    "street": ("street",),
    "counting(objects)": ("objects",),
    "albums": ("objects", "street"),
    "words_only": ("chart_bars",),
    "flawed": ("objects",),
    "empty": (),
}


FLAWS = ("broken", "missing", "silent", "unanswered", "long", "crowded")


def _add_flaw(flaw, images, texts):
    "The images and texts of a row with a flaw"
    first, *others = texts
    if flaw == "broken":
        images = [dict(images[0], bytes=images[0]["bytes"][:60])]
    elif flaw == "missing":
        images = [dict(bytes=None, path="0.png")]
    elif flaw == "silent":
        texts = []
    elif flaw == "unanswered":
        texts = [dict(first, assistant=" "), *others]
    elif flaw == "long":
        texts = [dict(first, user="Look closely. " * 4_000 + first["user"]), *others]
    elif flaw == "crowded":
        images = images * 5
    return images, texts


def _encode_image(image, i, k):
    "Image `k` of row `i` as parquet files store it, in turn as JPEG and as PNG"
    kind, extension = ("JPEG", "jpg") if (i + k) % 2 else ("PNG", "png")
    image.save(out := io.BytesIO(), kind)
    return dict(bytes=out.getvalue(), path=f"{i}-{k}.{extension}")


def _draw_conversations(subset, i, seed, n):
    "Conversations of the nano world for row `i` of a subset, each with an image"
    families, first = LIKE[subset], 1_000 * seed + 3 * i
    return [conversation(families[(i + k) % len(families)], "train", first + k) for k in range(n)]


def _choose_n_images(subset, rng):
    "The number of images of a row"
    if subset == "albums":
        return rng.choice((2, 3))
    return 0 if subset == "words_only" else 1


def _make_row(subset, i, seed):
    "Row `i` of a subset, in FineVision's columns"
    families, rng = LIKE[subset], random.Random(f"{seed}/{subset}/{i}")
    n_images = _choose_n_images(subset, rng)
    drawn = _draw_conversations(subset, i, seed, max(1, n_images))
    images = [_encode_image(c["images"][0], i, k) for k, c in enumerate(drawn[:n_images])]
    texts = drawn[0]["texts"]
    if subset == "flawed" and i < len(FLAWS):
        images, texts = _add_flaw(FLAWS[i], images, texts)
    row = dict(images=images, texts=texts, source=families[i % len(families)])
    for r in RATINGS:
        row[f"{r}_ratings"] = [rng.randint(1, 5) for _ in texts]
        row[f"{r}_min"] = min(row[f"{r}_ratings"], default=None)
    return row


def _practice_schema():
    "The columns of FineVision's files"
    from datasets import Features, Image, List, Value

    columns = dict(
        images=List(Image()),
        texts=List(dict(user=Value("string"), assistant=Value("string"))),
        source=Value("string"),
    )
    for r in RATINGS:
        columns |= {f"{r}_ratings": List(Value("int64")), f"{r}_min": Value("int64")}
    return Features(columns).arrow_schema


def _practice_columns():
    "The columns of FineVision's files, as a README lists them"
    columns = [
        dict(name="images", sequence="image"),
        dict(name="texts", list=[dict(name=who, dtype="string") for who in ("user", "assistant")]),
        dict(name="source", dtype="string"),
    ]
    for r in RATINGS:
        columns += [
            dict(name=f"{r}_ratings", sequence="int64"),
            dict(name=f"{r}_min", dtype="int64"),
        ]
    return columns


def _write_shards(folder, rows, shards):
    "Write the rows of a subset as several files; return their size in bytes"
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    size, schema = 0, _practice_schema()
    for k in range(shards):
        file = folder / f"train-{k:05}-of-{shards:05}.parquet"
        part = rows[k * len(rows) // shards : (k + 1) * len(rows) // shards]
        pq.write_table(pa.Table.from_pylist(part, schema=schema), file, row_group_size=4)
        size += file.stat().st_size
    return size


def _write_practice_card(folder, counts, sizes):
    "Write the README that lists the subsets with their rows and bytes"
    import yaml

    info, configs, columns = [], [], _practice_columns()
    for name, n in counts.items():
        size = sizes[name]
        split = dict(name="train", num_bytes=float(size), num_examples=n)
        sizes_in_bytes = dict(download_size=size, dataset_size=float(size))
        info.append(dict(config_name=name, features=columns, splits=[split]) | sizes_in_bytes)
        files = dict(split="train", path=f"{name}/train-*")
        configs.append(dict(config_name=name, data_files=[files]))
    front = yaml.safe_dump(dict(dataset_info=info, configs=configs), sort_keys=False)
    about = "The nano world in FineVision's layout: for tests and rehearsals."
    (folder / "README.md").write_text(f"---\n{front}---\n{about}\n")


def write_finevision_like(
    folder: str | Path,  # the repository to create
    subsets: list | None = None,  # names from `LIKE`; all by default
    rows: int = 12,  # number of rows of each subset except `empty`
    seed: int = 42,  # random seed of the samples
    shards: int = 2,  # number of files per subset
    card: bool = True,  # whether to write the README that lists the subsets
) -> dict:  # subset -> number of rows
    "Write a small local repository in FineVision's layout, filled by the nano world"
    folder, subsets = Path(folder), list(LIKE) if subsets is None else list(subsets)
    if unknown := [n for n in subsets if n not in LIKE]:
        raise BadInput(f"no subset '{unknown[0]}'; there are {', '.join(LIKE)}")
    counts, sizes = {}, {}
    for name in subsets:
        made = [_make_row(name, i, seed) for i in range(rows)] if LIKE[name] else []
        counts[name], sizes[name] = len(made), _write_shards(folder / name, made, shards)
    if card:
        _write_practice_card(folder, counts, sizes)
    return counts

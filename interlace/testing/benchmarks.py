"""Small stand-ins for the real benchmarks' data sets, for tests and rehearsals."""

# They have the columns, types, splits, configurations and file names of the real ones. Images are
# stored in several ways (palette, transparency, JPEG, base64), every category occurs at least once,
# and options are rotated where the real benchmark does so. The questions come from the nano world,
# so a model's score on them says nothing about the real benchmarks.
# (A longer docstring would enter the package's own, where nbdev lists such modules.)

import base64
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from interlace.core.errors import BadInput
from interlace.core.files import finished, quiet_datasets
from interlace.evaluation.benchmarks import REAL, real_names
from interlace.nano.benchmarks import ask
from interlace.nano.world import rng_for

HANDWRITTEN = "Handwritten Mathematical Expression Recognition"
SUBSETS = {  # benchmark -> its kinds of question, or the parts of its data set
    "ChartQA": ["human_test", "augmented_test"],
    "OCRBench": [
        "Regular Text Recognition",
        "Irregular Text Recognition",
        "Artistic Text Recognition",
        "Handwriting Recognition",
        "Digit String Recognition",
        "Non-Semantic Text Recognition",
        "Scene Text-centric VQA",
        "Doc-oriented VQA",
        "Key Information Extraction",
        HANDWRITTEN,
    ],
    "MMBench": [
        "attribute_recognition",
        "object_localization",
        "spatial_relationship",
        "ocr",
        "image_scene",
    ],
    "POPE": ["adversarial", "popular", "random"],
    "HRBench4K": ["single", "cross"],
    "HRBench8K": ["single", "cross"],
    "ScienceQA": ["natural science", "social science", "language science"],
    "V-Star": ["direct_attributes", "relative_position"],
}
FILES = {  # benchmark -> its file, where it differs from the usual name
    "MMBench": "en/dev-00000-of-00001.parquet",
    "HRBench4K": "hr_bench_4k.parquet",
    "HRBench8K": "hr_bench_8k.parquet",
    "ScienceQA": "ScienceQA-IMG/test-00000-of-00001.parquet",
    "TextVQA": "data/validation-00000-of-00001.parquet",
}
# benchmarks whose repository has a card that lists its files
CARDS = ("MMBench", "HRBench4K", "ScienceQA")


# Questions
# --------------------------------------------------------------------------------------------------


@cache
def _answers(benchmark):
    "Return the answers of some questions of a nano benchmark, to draw wrong options from"
    return sorted({ask(benchmark, i)["answer"] for i in range(24)})


def encode_image(image, way):
    "Return the content of an image file; `way` is P (a palette), RGBA, JPEG or PNG"
    out = io.BytesIO()
    if way == "JPEG":
        image.save(out, "JPEG", quality=95)
    else:
        (image if way == "PNG" else image.convert(way)).save(out, "PNG")
    return out.getvalue()


@dataclass(frozen=True)
class StandIn:
    "A question of the nano world with options, to be written in a benchmark's schema"

    number: int
    asked: dict  # from `ask`
    options: list
    right: int  # index of the right option
    subset: str

    @property
    def prompt(self):
        "The question without its options"
        return self.asked["question"].split("\n")[0]

    @property
    def image(self):
        "The image as `datasets` stores it"
        way = ("P", "RGBA", "JPEG", "PNG")[self.number % 4]
        return dict(bytes=encode_image(self.asked["image"], way), path=None)

    @property
    def letter(self):
        "The letter of the right option"
        return chr(65 + self.right)

    def lettered(self, pattern):
        "The options with their letters, by a pattern such as '{letter}. {option}'"
        pairs = [(chr(65 + k), option) for k, option in enumerate(self.options)]
        return "".join(pattern.format(letter=letter, option=option) for letter, option in pairs)

    def rotations(self):
        "The question with every rotation of its options: columns A to D, and the right letter"
        n, rotations = len(self.options), []
        for r in range(n):
            turned = self.options[r:] + self.options[:r] + ["nan"] * (4 - n)
            columns = dict(zip("ABCD", turned, strict=False))
            rotations.append((columns, chr(65 + (self.right - r) % n)))
        return rotations


def stand_in(benchmark, number, rng):
    "Draw a question of a nano benchmark; one without options gets wrong answers of others"
    asked = ask(benchmark, number)
    if asked["options"]:
        right, options = asked["options"][ord(asked["answer"]) - 65], asked["options"]
    else:
        right = asked["answer"]
        wrong = [answer for answer in _answers(benchmark) if answer != right]
        options = [right, *rng.permutation(wrong)[:3].tolist()]
    options = [options[k] for k in rng.permutation(len(options))]
    subsets = SUBSETS.get(benchmark, [""])
    subset = subsets[number % len(subsets)]
    return StandIn(number, asked, options, options.index(right), subset)


# Rows of one question in each benchmark's schema
# --------------------------------------------------------------------------------------------------


def ai2d(q):
    "A question in the columns of AI2D"
    row = dict(question=q.prompt, options=q.options, answer=str(q.right), image=q.image)
    return [row]


def chartqa(q):
    "A question in the columns of ChartQA"
    asked, answer = q.asked["question"], q.asked["answer"]
    return [dict(type=q.subset, question=asked, answer=answer, image=q.image)]


def ocrbench(q):
    "A question in the columns of OCRBench"
    row = dict(
        dataset="HME100k" if q.subset == HANDWRITTEN else "nano",
        question=q.prompt,
        question_type=q.subset,
        answer=[q.asked["answer"]],
        image=q.image,
    )
    return [row]


def textvqa(q):
    "A question in the columns of TextVQA"
    row = dict(
        image_id=f"{q.number:016x}",
        question_id=q.number,
        question=q.prompt,
        question_tokens=q.prompt.lower().split(),
        image=q.image,
        image_width=q.asked["image"].width,
        image_height=q.asked["image"].height,
        flickr_original_url="",
        flickr_300k_url="",
        answers=[q.asked["answer"]] * 8 + ["unanswerable"] * 2,
        image_classes=[q.asked["kind"]],
        set_name="val",
        ocr_tokens=[],
    )
    return [row]


def mmbench(q):
    "A question in the columns of MMBench"
    return [
        {
            "index": q.number + 10**6 * r,
            "question": q.prompt,
            "hint": "nan" if q.number % 2 else "Look at the picture.",
            "answer": letter,
            **columns,
            "category": q.subset,
            "image": q.image,
            "source": "nano",
            "comment": "nan",
            "split": "dev",
            "L2-category": "coarse_perception",
        }
        for r, (columns, letter) in enumerate(q.rotations())
    ]


def pope(q):
    "A question in the columns of POPE"
    row = dict(
        id=str(q.number),
        question_id=str(q.number),
        question=q.asked["question"],
        answer=q.asked["answer"],
        image_source=f"nano_{q.number:012d}",
        image=q.image,
        category=q.subset,
    )
    return [row]


def realworldqa(q):
    "A question in the columns of RealWorldQA"
    if q.number % 3:
        options = q.lettered("\n{letter}. {option}")
        short = (
            "Please answer directly with only the letter of the correct option and nothing else."
        )
        question, answer = f"{q.prompt}{options}\n{short}", q.letter
    else:
        question = f"{q.prompt} Please answer directly with a single word or number."
        answer = q.options[q.right]
    path = f"{q.number}.webp"
    return [dict(image_path=path, image=q.image, question=question, answer=answer)]


def hrbench(q):
    "Each question is asked four times, whatever its number of options"
    return [
        dict(
            index=4 * q.number + r,
            question=q.prompt,
            answer=letter,
            category=q.subset,
            **columns,
            cycle_category=str(r),
            image=base64.b64encode(encode_image(q.asked["image"], "JPEG")).decode(),
        )
        for r, (columns, letter) in enumerate((q.rotations() * 4)[:4])
    ]


def vstar(q):
    "A question in the columns of V*Bench"
    options = q.lettered("\n({letter}) {option}")
    short = "Answer with the option's letter from the given choices directly."
    row = dict(
        image=q.image,
        text=f"{q.prompt}{options}\n{short}",
        category=q.subset,
        label=q.letter,
        question_id=str(q.number),
    )
    return [row]


def mia_bench(q):
    "A question in the columns of MIA-Bench"
    row = dict(
        image=q.image,
        instruction=q.asked["question"],
        type="basic",
        num_of_component=2,
        components=["Name what is asked for.", "Keep to the form."],
        component_weight=[5, 5],
        component_type=["describe", "format"],
    )
    return [row]


def scienceqa(q):
    "A question in the columns of ScienceQA"
    row = dict(
        image=q.image,
        question=q.prompt,
        choices=q.options,
        answer=q.right,
        hint="" if q.number % 2 else "Study the picture.",
        task="closed choice",
        grade="grade3",
        subject=q.subset,
        topic="physics",
        category="Magnets",
        skill="Compare",
        lecture="",
        solution="",
    )
    return [row]


ROWS = {
    "AI2D": ai2d,
    "ChartQA": chartqa,
    "OCRBench": ocrbench,
    "TextVQA": textvqa,
    "MMBench": mmbench,
    "POPE": pope,
    "RealWorldQA": realworldqa,
    "HRBench4K": hrbench,
    "HRBench8K": hrbench,
    "V-Star": vstar,
    "MIABench": mia_bench,
    "ScienceQA": scienceqa,
}


# Repositories
# --------------------------------------------------------------------------------------------------


def _features(real):
    "Return the columns of a real data set with their types"
    from datasets import Features, Image, List, Value

    types = dict(
        text=Value("string"),
        texts=List(Value("string")),
        picture=Image(),
        int64=Value("int64"),
        int32=Value("int32"),
        int32s=List(Value("int32")),
        int8=Value("int8"),
    )
    return Features({column: types[kind] for column, (kind, _) in real.schema.items()})


def _write_rows(repository, benchmark, questions, seed):
    "Write a benchmark's file and return its number of rows"
    from datasets import Dataset

    rows = []
    for i in range(max(questions, len(SUBSETS.get(benchmark, "")))):
        rng = rng_for("like", benchmark, seed, i)
        rows += ROWS[benchmark](stand_in(benchmark, 1000 * seed + i, rng))
    file = repository / FILES.get(benchmark, "data/test-00000-of-00001.parquet")
    with quiet_datasets(), finished(file) as part:
        Dataset.from_list(rows, features=_features(REAL[benchmark])).to_parquet(part)
    return len(rows)


def _write_card(repository, real):
    "Write the card that says which file belongs to which split"
    files = ""
    for name, other in REAL.items():
        if other.dataset == real.dataset:
            path = FILES[name]
            pattern = path.split("-0000")[0] + "-*" if "-of-" in path else path
            files += f"  - split: {other.split}\n    path: {pattern}\n"
    with finished(repository / "README.md") as part:
        part.write_text(f"---\nconfigs:\n- config_name: {real.config}\n  data_files:\n{files}---\n")


def write_benchmarks_like(
    folder: str | Path,  # output folder for one repository per data set, `owner__name`
    questions: int = 4,  # number of questions per benchmark; at least one per category
    seed: int = 0,  # random seed of the images and questions
    names: list | None = None,  # keys of `REAL`; all by default
) -> dict:  # benchmark -> number of rows written
    "Write small stand-ins for the real benchmarks' data sets, in their schema"
    names, counts = real_names(names), {}
    if questions < 1:
        raise BadInput(f"questions {questions}: each benchmark needs at least 1")

    def repository(name):
        return Path(folder) / REAL[name].dataset.replace("/", "__")

    for name in names:
        counts[name] = _write_rows(repository(name), name, questions, seed)
    written = {REAL[name].dataset for name in names}
    for name in CARDS:
        if REAL[name].dataset in written:
            _write_card(repository(name), REAL[name])
    return counts

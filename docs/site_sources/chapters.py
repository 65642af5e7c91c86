"""The notebooks that become pages, in reading order."""

import re
import sys
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "nbs"
# the packages of the library in reading order
PACKAGES = dict(
    method="Method",
    baselines="Baselines",
    models="Models",
    data="Data",
    nano="Nano",
    evaluation="Evaluation",
    reproduction="Reproduction",
    core="Core",
)
EQUATION_LABEL = re.compile(r'<a id="(eq-[\w-]+)"></a>')


@dataclass(frozen=True)
class Chapter:
    "A notebook and its page"

    path: Path
    page: str  # path of the page below the site's root, without suffix
    number: int | None = None  # only chapters of the library are numbered

    @property
    def title(self):
        return title(self.path)


@cache
def title(path):
    "Return a notebook's title"
    return nbformat.read(path, 4).cells[0].source.splitlines()[0].removeprefix("# ")


def chapter(path, number=None):
    "Return the chapter of a notebook whose page has the same place as the notebook"
    page = path.relative_to(NOTEBOOKS).with_suffix("").as_posix()
    return Chapter(path, page, number)


def library_chapters():
    "Return the numbered chapters of each package"
    paths = {package: sorted((NOTEBOOKS / package).glob("*.ipynb")) for package in PACKAGES}
    paths["reproduction"].append(NOTEBOOKS / "cli.ipynb")
    numbers = count(1)
    return {
        package: [chapter(path, next(numbers)) for path in inside]
        for package, inside in paths.items()
    }


def guides():
    "Return the guides"
    return [chapter(path) for path in sorted((NOTEBOOKS / "guides").glob("*.ipynb"))]


def overview():
    "Return the page made from a part of the index notebook"
    return Chapter(NOTEBOOKS / "index.ipynb", "overview")


def executed_chapters():
    "Return all notebooks that are shown with their outputs"
    numbered = [c for chapters in library_chapters().values() for c in chapters]
    return [*numbered, *guides(), overview()]


def paper_chapters():
    "Return the notebooks that papermill runs"
    return [chapter(path) for path in sorted((NOTEBOOKS / "paper").glob("*/*.ipynb"))]


@cache
def paper_notebook(name):
    "Return the path of the notebook that papermill runs for one stage or artifact, or None"
    return next((NOTEBOOKS / "paper").glob(f"*/{name}.ipynb"), None)


def equations(chapters):
    "Return the page and the number of each labelled equation; the chapter's number comes first"
    found = {}
    for chapter in chapters:
        for k, label in enumerate(equation_labels(chapter.path), 1):
            if label in found:
                sys.exit(
                    f"{chapter.path.name}: equation {label} is in {found[label][0]} too; give it"
                    " another name"
                )
            number = f"{chapter.number}.{k}" if chapter.number else str(k)
            found[label] = (chapter.page, number)
    return found


def equation_labels(path):
    "Return the labels of a notebook's equations in order"
    cells = nbformat.read(path, 4).cells
    text = "\n\n".join(c.source for c in cells if c.cell_type == "markdown")
    return EQUATION_LABEL.findall(text)

"""Writes codecheck.yml, the manifest for a CODECHECK (codecheck.org.uk): `make citation`.

It lists the files that a codechecker recreates: each figure and table of the profile nano. The
paper comes from CITATION.cff.
"""

import json
import re
from pathlib import Path

import yaml

from interlace.core.profiles import load_profile
from interlace.reproduction.pipeline import stages

ROOT = Path(__file__).parent.parent
FILE = "codecheck.yml"
HEAD = """# Written by `make citation`, from CITATION.cff and the run matrix of the profile nano.
# No CODECHECK has taken place: codechecker, report and certificate are left out until one has.
"""


def title(root, notebook):
    "The title of a notebook"
    cells = json.loads((root / "nbs" / "paper" / f"{notebook}.ipynb").read_text())["cells"]
    return "".join(cells[0]["source"]).splitlines()[0].removeprefix("# ")


def manifest(root):
    "The image of each figure and the numbers of each table, with what they show"
    suffixes, found = dict(figures=".png", tables=".csv"), []
    for stage in stages(load_profile("nano", root / "settings.ini")):
        suffix = suffixes.get(stage.notebook.split("/")[0])
        for file in stage.outputs:
            if Path(file).suffix == suffix:
                comment = title(root, stage.notebook) + note(root / file)
                found.append(dict(file=file, comment=comment))
    return found


def note(path):
    "What a codechecker should know about a table: times are never the same again"
    timed = path.suffix == ".csv" and re.search("ttft|wall_s", path.read_text())
    return "; its times depend on the machine" if timed else ""


def text(root=ROOT):
    "The text of the manifest"
    cited = yaml.safe_load((root / "CITATION.cff").read_text())
    paper = cited["preferred-citation"]
    arxiv = paper["identifiers"][0]["value"].removeprefix("arXiv:")
    names = [f"{a['given-names']} {a['family-names']}" for a in paper["authors"]]
    content = dict(
        version="https://codecheck.org.uk/spec/config/1.0/",
        manifest=manifest(root),
        paper=dict(
            title=paper["title"],
            authors=[dict(name=name) for name in names],
            reference=f"https://arxiv.org/abs/{arxiv}",
        ),
        source=(
            f"{cited['title'].split(':')[0]} {cited['version']}, by {cited['authors'][0]['name']},"
            " not by the paper's authors. The files are results of small models that were trained"
            " here, not of the paper's models. `make reproduce` makes all of them."
        ),
    )
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    return f"%YAML 1.1\n---\n{HEAD}{body}"


if __name__ == "__main__":
    (ROOT / FILE).write_text(text())

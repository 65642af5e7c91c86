"""The stored figures and tables, each with the record of how it was made."""

import csv
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from interlace.core.provenance import fingerprint

from .chapters import NOTEBOOKS, ROOT, paper_notebook, title

# artifact -> the notebook that makes it besides its own
MADE_WITH = {
    "power": "budget",
    "sample_size": "stability",
    "plan_losses": "stability",
    "authors_settings": "fidelity",
    "serving": "engines",
    "rivals_scores": "rivals",
}
PAPER_LABEL = re.compile(r"(Figure|Table) (\d)")
FORMATS = dict(png="PNG", pdf="PDF", csv="CSV", tex="LaTeX", md="Markdown")


@dataclass(frozen=True)
class Artifact:
    "A figure or a table of one profile"

    path: Path  # the record, figures/PROFILE/NAME.json or tables/PROFILE/NAME.json

    @cached_property
    def record(self):
        return json.loads(self.path.read_text())

    @property
    def name(self):
        return self.path.stem

    @property
    def profile(self):
        return self.path.parent.name

    @property
    def kind(self):
        return self.record["kind"]

    @property
    def caption(self):
        return self.record["caption"]

    @property
    def provenance(self):
        return self.record["provenance"]

    @property
    def maker(self):
        "The name of the notebook that made it"
        return MADE_WITH.get(self.name, self.name)

    @property
    def notebook_path(self):
        return paper_notebook(self.maker) or paper_notebook(self.profile)

    @property
    def notebook(self):
        "The page of the notebook that made it"
        return self.notebook_path.relative_to(NOTEBOOKS).with_suffix("").as_posix()

    @property
    def heading(self):
        "The notebook's title; for the paper's artifacts it starts with the paper's label"
        return title(self.notebook_path)

    @property
    def paper_label(self):
        "For example 'Table 1'; None if the paper has no such artifact"
        label = PAPER_LABEL.match(self.heading)
        return label and label[0]

    @property
    def label(self):
        return self.paper_label or self.kind.capitalize()

    @property
    def title(self):
        if self.maker != self.name:
            model = "" if self.profile == "nano" else f" ({self.profile})"
            return f"{self.heading}: {self.name.replace('_', ' ')}{model}"
        if self.profile == "nano":
            return self.heading
        return f"{self.heading} ({self.profile if paper_notebook(self.name) else self.name})"

    @property
    def page(self):
        return f"results/{self.page_name}"

    @property
    def page_name(self):
        return self.name if self.profile == "nano" else f"{self.profile}-{self.name}"

    @property
    def command(self):
        "The command that makes this artifact alone"
        parameters = self.provenance["parameters"]
        if parameters.get("profile") and self.notebook_path.parent.name != "extra":
            return f"interlace reproduce --profile {parameters['profile']} --only {self.name}"
        if self.profile == "shapes":
            return f"make shapes SHAPE={parameters['shape']}"
        return f"make {self.maker.replace('_', '-')}"

    @property
    def changed_inputs(self):
        "The stored inputs that are not what they were when it was made"
        return [
            name
            for name, mark in self.record["inputs"].items()
            if not name.startswith("runs/")
            and (ROOT / name).is_file()
            and fingerprint(ROOT / name) != mark
        ]

    @property
    def downloads(self):
        "The name of each file's format and the file's path in the repository"
        files = {name: self.path.with_suffix(f".{suffix}") for suffix, name in FORMATS.items()}
        return {name: path.relative_to(ROOT) for name, path in files.items() if path.exists()}

    @property
    def record_file(self):
        return self.path.relative_to(ROOT)

    @property
    def image(self):
        return self.path.with_suffix(".png").relative_to(ROOT)

    @property
    def rows(self):
        "A table's rows in Markdown, without the caption"
        text = self.path.with_suffix(".md").read_text().split("\n\n")[0]
        return "\n".join(line for line in text.splitlines() if line.startswith("|"))


def stored_artifacts():
    "Return all figures and tables: profile nano first, figures before tables, the paper's first"
    paths = sorted(p for kind in ("figures", "tables") for p in (ROOT / kind).glob("*/*.json"))
    found = [a for a in map(Artifact, paths) if a.record.get("kind") in ("figure", "table")]
    return sorted(found, key=reading_order)


def reading_order(artifact):
    folder = artifact.path.parts[-3]
    not_nano, not_in_paper = artifact.profile != "nano", artifact.paper_label is None
    return not_nano, artifact.profile, folder, not_in_paper, artifact.name


def stored_artifact(path):
    "Return the artifact with this record, or None if the record is missing"
    return Artifact(ROOT / path) if (ROOT / path).exists() else None


def paper_pages(artifacts):
    "Return the page of each of the paper's artifacts on the nano models, by its label"
    return {a.paper_label: a.page for a in artifacts if a.profile == "nano" and a.paper_label}


def claims_about(artifact):
    "Return the rows of the comparison that belong to one of the paper's figures or tables"
    if artifact.profile != "nano" or not artifact.paper_label:
        return []
    with open(ROOT / "tables" / "nano" / "comparison.csv") as f:
        return [c for c in csv.DictReader(f) if artifact.paper_label in labels_of_claim(c["id"])]


def labels_of_claim(claim_id):
    "Return the paper's figures and tables that a claim is about"
    if "ttft" in claim_id:
        return ("Table 1", "Table 5")
    topic = claim_id.removeprefix("order/").split("/")[0]
    labels = dict(comparison=("Table 1", "Figure 1"), ratios=("Table 2",), ablation=("Table 3",))
    return labels.get(topic, ())


def explorer_data():
    """Return the explorer's data, the stored scores of each profile, as a script

    A page that is opened from disk may not fetch data, but it may load a script.
    """
    records = sorted((ROOT / "figures").glob("*/explorer.json"))
    data = {path.parent.name: json.loads(path.read_text()) for path in records}
    return "window.INTERLACE_EXPLORER = " + json.dumps(data) + ";\n"

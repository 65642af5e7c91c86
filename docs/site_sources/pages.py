"""The pages that are not notebooks: Jinja templates, filled in."""

import csv
import json
import re
import tarfile
from collections import Counter
from itertools import groupby

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from interlace.core.profiles import load_profile
from interlace.evaluation.uncertainty import verdict
from interlace.reproduction.artifacts import PUBLISHED
from interlace.reproduction.pipeline import stages

from .artifacts import claims_about, stored_artifact
from .chapters import PACKAGES, ROOT
from .links import table_cell

TEMPLATES = Environment(
    loader=FileSystemLoader([ROOT / "docs", ROOT / "docs" / "templates"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def artifact_page(artifact, links):
    "Return the page of a figure or a table"
    values = dict(
        artifact=artifact,
        links=lambda text: links(text, artifact.page),
        claims=claims_about(artifact),
        orders=None,
        pretrained=(),
    )
    if artifact.name == "comparison":
        values["orders"] = stored_artifact(f"figures/{artifact.profile}/orders.json")
    if (artifact.profile, artifact.name) == ("nano", "comparison"):
        values["pretrained"] = pretrained_artifacts()
    return TEMPLATES.get_template("artifact.md.jinja").render(values)


def pretrained_artifacts():
    "Return the artifacts of the pretrained decoder; none if one of them is missing"
    paths = dict(
        table="tables/smollm2/pretrained.json",
        figure="figures/smollm2/profiles.json",
        methods="tables/smollm2/methods.json",
    )
    found = {name: stored_artifact(path) for name, path in paths.items()}
    return found if all(found.values()) else {}


def artifact_index(artifacts, bundles):
    "Return the page that lists the figures and tables of each profile, with what to download"
    by_profile = groupby(artifacts, key=lambda artifact: artifact.profile)
    return TEMPLATES.get_template("artifact_index.md.jinja").render(
        profiles={profile: list(group) for profile, group in by_profile},
        pages=[artifact.page for artifact in artifacts],
        bundles=bundles,
        rivals=[compared_rivals(a) for a in artifacts if a.name == "rivals_scores"],
    )


def compared_rivals(artifact):
    "Return what a table of rivals says: its model, and by fine-tuning who scores higher and lower"
    with artifact.path.with_suffix(".csv").open() as f:
        rows = [row for row in csv.DictReader(f) if row["variant"] not in ("Dense", "INTERLACE")]
    found = dict(artifact=artifact, model=artifact.provenance["parameters"]["model"])
    for when, tuned in (("after", "yes"), ("before", "no")):
        found[when] = dict(higher=[], lower=[], others=[])
        for row in rows:
            if row["fine_tuned"] == tuned:
                gap = {end: float(row[f"against_{end}"]) for end in ("low", "high")}
                found[when][verdict(gap, "higher", "lower", "others")].append(row)
    return found


def paper_index(chapters):
    "Return the page that lists the notebooks that papermill runs"
    return TEMPLATES.get_template("paper_index.md.jinja").render(chapters=chapters)


def page(name, links, **values):
    "Return a page of docs/, which is a template too"
    text = TEMPLATES.get_template(name).render(values)
    return links(text, name.removesuffix(".md"))


def tables_of_contents(chapters, guides, cards):
    "Return the pages of each part of the sidebar, by the part's title"
    packages = {PACKAGES[name]: [c.page for c in inside] for name, inside in chapters.items()}
    packages["Nano"] += cards
    return {
        "Start": ["overview", "explorer", "glossary"],
        "Guides": [*(guide.page for guide in guides), "serve"],
        "Results": ["results/index", "artifact_appendix"],
        **packages,
        "Experiments": ["paper/index"],
        "About": ["fidelity", "cite", "references", "findings", "changelog"],
    }


def abstract_claims():
    "Return the statements of the paper's abstract"
    reported = json.loads((ROOT / "interlace" / "reported.json").read_text())
    return [claim["text"] for claim in reported["abstract_claims"]]


def findings():
    "Return what surprised us: (title, what happens, path of the script), from the scripts' heads"
    found = []
    for path in sorted((ROOT / "findings").glob("*.sh")):
        _, *lines = path.read_text().splitlines()
        comments = [line.removeprefix("#").strip() for line in lines[: lines.index("set -eu")]]
        title, _, text = "\n".join(comments).partition("\n\n")
        title = " ".join(title.split())
        found.append((title.rstrip("."), text.strip(), path.relative_to(ROOT).as_posix()))
    return found


def appendix():
    "Return the numbers of the artifact appendix: stages, verdicts, and what the records add up to"
    verdicts = Counter()
    with (ROOT / "tables" / "nano" / "comparison.csv").open() as rows:
        verdicts.update(row["verdict"] for row in csv.DictReader(rows))
    records = published_records("nano")
    hours = sum(map(measured_seconds, records)) / 3600
    devices = {r["provenance"]["device"] for r in records if "provenance" in r}
    return dict(
        stages=len(stages(load_profile("nano", ROOT / "settings.ini"))),
        verdicts=dict(verdicts.most_common()),
        hours=f"{hours:.1f}",
        device=" and ".join(sorted(devices)),
    )


def published_records(profile):
    "Return the decoded records of a profile's published run"
    with tarfile.open(ROOT / "tables" / profile / PUBLISHED) as archive:
        return [json.load(archive.extractfile(entry)) for entry in archive]


def measured_seconds(record):
    "Return the sum of the times that a record holds, in any depth"
    if not isinstance(record, dict):
        return 0
    return (record.get("wall_s") or 0) + sum(map(measured_seconds, record.values()))


def card_text(path):
    "Return a model card without its header for the model hub"
    return re.sub(r"\A---\n.*?\n---\n", "", path.read_text(), flags=re.S)


def cite_page():
    "Return the page on how to cite, made from CITATION.cff"
    software = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    paper = software["preferred-citation"]
    ids = [i["value"] for i in paper["identifiers"]]
    return TEMPLATES.get_template("cite.md.jinja").render(
        software=software,
        year=str(software.get("date-released", paper["year"]))[:4],
        paper=paper,
        arxiv=next(i.removeprefix("arXiv:") for i in ids if i.startswith("arXiv:")),
    )


def bibtex_authors(authors):
    "Return authors as BibTeX wants them; a group's name is in braces"
    people = [
        f"{a['family-names']}, {a['given-names']}" if "family-names" in a else f"{{{a['name']}}}"
        for a in authors
    ]
    return " and ".join(people)


def plain_authors(authors):
    "Return authors with initials"
    people = [
        f"{a['family-names']}, {a['given-names'][0]}." if "family-names" in a else a["name"]
        for a in authors
    ]
    return ", ".join(people)


def format_value(value, unit=""):
    "Format a value of the comparison: percentages and points to a tenth, ratios to a hundredth"
    try:
        number = float(value)
    except ValueError:
        return value
    if unit == "x":
        return f"{number:.2f}"
    return f"{number:.1f}%" if unit == "%" else f"{number:.1f}"


TEMPLATES.filters |= dict(
    bibtex=bibtex_authors, plain=plain_authors, value=format_value, cell=table_cell
)

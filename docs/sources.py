"""Gather the site's sources (notebooks, artifacts, cards and pages) as MyST files in _docs/source.

`python docs/sources.py [FOLDER]`; Sphinx then builds the folder, see `conf.py`.
"""

import shutil
import sys
from pathlib import Path

import nbformat
from site_sources import pages
from site_sources.artifacts import explorer_data, stored_artifacts
from site_sources.chapters import (
    ROOT,
    executed_chapters,
    guides,
    library_chapters,
    paper_chapters,
)
from site_sources.links import project_links
from site_sources.names import MODULES, exported, split
from site_sources.notebooks import translate

from interlace.core.profiles import profiles
from interlace.reproduction.artifacts import PUBLISHED
from interlace.reproduction.crate import write_crate

__all__ = ["explorer_data", "exported"]
OUTPUTS = {  # whether a notebook keeps outputs -> what its page says about them
    True: "The outputs are those of a run with these parameters. Every run keeps its own executed"
    " copy, in `runs/<profile>/notebooks`.",
    False: "It is shown here as it is kept, without outputs: a run keeps its own executed copy, in"
    " `runs/<profile>/notebooks`.",
}


def main(out):
    links = project_links()
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "_static", out / "_static")
    shutil.copy(ROOT / "docs" / "references.bib", out)
    (out / "_static" / "explorer-data.js").write_text(explorer_data())
    write_notebooks(out, links)
    artifacts = stored_artifacts()
    for artifact in artifacts:
        copy_files(out, artifact)
        write(out, f"{artifact.page}.md", pages.artifact_page(artifact, links))
    bundles = write_bundles(out, list(dict.fromkeys(a.profile for a in artifacts)))
    write(out, "results/index.md", pages.artifact_index(artifacts, bundles))
    write(out, "paper/index.md", pages.paper_index(paper_chapters()))
    write(out, "cite.md", pages.cite_page())
    write(out, "changelog.md", links((ROOT / "CHANGELOG.md").read_text(), "changelog"))
    write_pages(out, links, write_cards(out, links), artifacts)


def write(out, name, text):
    "Write a page; its folder is made"
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text(text)


def write_notebooks(out, links):
    "Write the pages of all notebooks; a public name that none of them documents is an error"
    undocumented = {n for n in links.names.values() if n not in MODULES and len(split(n)[1]) == 1}
    for chapter in executed_chapters():
        nb, documented = translate(chapter, links)
        undocumented -= set(documented)
        write(out, f"{chapter.page}.ipynb", nbformat.writes(nb))
    if undocumented:
        sys.exit(f"not documented by any chapter: {', '.join(sorted(undocumented))}")
    for chapter in paper_chapters():
        kept = nbformat.read(chapter.path, 4).cells
        about = OUTPUTS[any(c.get("outputs") for c in kept)]
        nb, _ = translate(chapter, links, about=about)
        write(out, f"{chapter.page}.ipynb", nbformat.writes(nb))


def copy_files(out, artifact):
    "Copy an artifact's files to where its page links to them"
    for path in [*artifact.downloads.values(), artifact.record_file]:
        (out / "files" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, out / "files" / path)


def write_bundles(out, folders):
    "Write what a profile's results are downloaded as: its crate and, if published, its records"
    bundles = {}
    for profile in set(folders) & set(profiles(ROOT / "settings.ini")):
        crate = Path("crates") / f"{profile}.crate.zip"
        write_crate(profile, out / "files" / crate)
        bundles[profile] = {"research crate (RO-Crate)": crate}
        records = Path("tables") / profile / PUBLISHED
        if (ROOT / records).is_file():
            shutil.copy(ROOT / records, out / "files" / records)
            bundles[profile]["records"] = records
    return bundles


def write_cards(out, links):
    "Write the pages of the model cards; return the pages"
    cards = []
    for path in sorted((ROOT / "interlace" / "weights").glob("*/README.md")):
        card = f"cards/{path.parent.name}"
        write(out, f"{card}.md", links(pages.card_text(path), card))
        cards.append(card)
    return cards


def write_pages(out, links, cards, artifacts):
    "Write the pages in docs/"
    captions = {artifact.page: artifact.caption for artifact in artifacts}
    values = dict(
        figure1_caption=captions["results/figure1"],
        abstract_claims=pages.abstract_claims(),
        appendix=pages.appendix(),
        findings=pages.findings(),
        tables_of_contents=pages.tables_of_contents(library_chapters(), guides(), cards),
    )
    scripts = shutil.ignore_patterns("*.md")
    shutil.copytree(ROOT / "findings", out / "files" / "findings", ignore=scripts)
    for path in sorted((ROOT / "docs").glob("*.md")):
        write(out, path.name, pages.page(path.name, links, **values))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "_docs" / "source").resolve())

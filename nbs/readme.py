"""README.md from index.ipynb, its stored outputs included. `--check` compares and writes nothing."""
import re, sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
PICTURES = "figures/readme"


def readme():
    "The text of README.md and its pictures, by path"
    nb = nbformat.read(ROOT/"nbs"/"index.ipynb", 4)
    nb.metadata["language_info"] = {"name": "python"}
    for c in nb.cells:
        if c.cell_type == "code": c.source = "\n".join(l for l in c.source.splitlines() if not l.startswith("#|"))
    text, resources = MarkdownExporter().from_notebook_node(nb, {"output_files_dir": PICTURES, "unique_key": "index"})
    text = text.replace("../", "")                     # the notebook lies one folder deeper
    text = re.sub(r"\]\((\d\d_\w+\.ipynb)", r"](nbs/\1", text)
    return "\n".join(l.rstrip() for l in text.strip().splitlines()) + "\n", {p: d for p, d in resources["outputs"].items() if p in text}


def main():
    text, pictures = readme()
    if "--check" in sys.argv:
        if (ROOT/"README.md").read_text() != text: sys.exit("README.md is not what nbs/index.ipynb says; run make readme")
        return
    (ROOT/"README.md").write_text(text)
    for old in (ROOT/PICTURES).glob("*"): old.unlink()
    for path, data in pictures.items():
        (ROOT/path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT/path).write_bytes(data)


if __name__ == "__main__": main()

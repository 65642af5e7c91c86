"""Write README.md from index.ipynb with its stored outputs; `--check` only compares."""

import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import TagRemovePreprocessor

ROOT = Path(__file__).resolve().parents[1]
PICTURES = "figures/readme"


def readme():
    "Return the text of README.md, and its images by path"
    nb = nbformat.read(ROOT / "nbs" / "index.ipynb", 4)
    nb.metadata["language_info"] = {"name": "python"}
    nb.cells = [c for c in nb.cells if "notebook-only" not in c.metadata.get("tags", [])]
    for c in nb.cells:
        if c.cell_type != "code":
            continue
        c.outputs = [o for o in c.outputs if o.get("name") != "stderr"]  # progress bars
        if "#| echo: false" in c.source:
            c.metadata["tags"] = ["remove-input"]
        c.source = "\n".join(line for line in c.source.splitlines() if not line.startswith("#|"))
    exporter = MarkdownExporter()
    exporter.register_preprocessor(
        TagRemovePreprocessor(remove_input_tags={"remove-input"}), enabled=True
    )
    text, resources = exporter.from_notebook_node(
        nb, {"output_files_dir": PICTURES, "unique_key": "index"}
    )
    text = text.replace("../", "")  # the notebook is one folder deeper
    text = re.sub(r"\]\(((?:\w+/)+\w+\.ipynb)", r"](nbs/\1", text)
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.strip().splitlines()))
    return text + "\n", {p: d for p, d in resources["outputs"].items() if p in text}


def main():
    "Write README.md and its images, or with `--check` compare the text"
    text, pictures = readme()
    if "--check" in sys.argv:
        if (ROOT / "README.md").read_text() != text:
            sys.exit("README.md is not what nbs/index.ipynb says; run make readme")
        return
    (ROOT / "README.md").write_text(text)
    for old in (ROOT / PICTURES).glob("*"):
        old.unlink()
    for path, data in pictures.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_bytes(data)


if __name__ == "__main__":
    main()

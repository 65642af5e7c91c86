#!/bin/sh
# nbdev 3.3.26: a longer docstring in any module makes nbdev-export replace the package's docstring.
#
# nbdev-export rewrites the modules that come from notebooks. It also looks at all other modules of
# the package. As soon as one of them, wherever it is and whoever wrote it, has a docstring of four
# lines or more, the docstring of the package's own `__init__.py` is replaced by the project's
# description and a list of such modules, and a file `llms.txt` appears next to the notebooks. With
# three lines nothing happens. So a hand-written `__init__.py` changes because of a docstring in
# another file, and a check that exported files are up to date fails.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q nbdev==3.3.26
cd "$folder"
mkdir -p nbs pack
cat > pyproject.toml <<'TOML'
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "pack"
description = "The description"
version = "0.1"

[tool.nbdev]
lib_path = "pack"
nbs_path = "nbs"
TOML
cat > show.py <<'PY'
import json
import subprocess
from pathlib import Path

cell = dict(cell_type="code", id="00000001", metadata={}, outputs=[], execution_count=None)
cells = [dict(cell, id=f"0000000{i}", source=s) for i, s in enumerate(["#| default_exp core", "#| export\nx = 1"])]
Path("nbs/00_core.ipynb").write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))


def export(lines):
    "Export with a hand-written module whose docstring has so many lines; return what changed"
    Path("pack/__init__.py").write_text('"""Ours."""\n\n__version__ = "0.1"\n')
    Path("nbs/llms.txt").unlink(missing_ok=True)
    text = "\n".join(["One.", "", *["more"] * (lines - 2)])
    Path("pack/by_hand.py").write_text(f'"""{text}"""\n')
    subprocess.run(["env/bin/nbdev-export"], check=True)
    return Path("pack/__init__.py").read_text().splitlines()[0], Path("nbs/llms.txt").exists()


three, four = export(3), export(4)
print("three lines:", three)
print("four lines:", four)
assert three == ('"""Ours."""', False), "three lines change something now"
assert "Ours" not in four[0] and four[1], "four lines change nothing now: the finding is out of date"
PY
env/bin/python show.py

#!/bin/sh
# ruff 0.17.6 with fastcore 2.2.39: formatting can remove a parameter's documentation.
#
# fastcore's docments (which nbdev's documentation shows) reads the comment on the line where a
# parameter begins. If a parameter and its trailing comment exceed the line length, `ruff format`
# splits the annotation at `|` and leaves the comment on the last line. The code means the same,
# but docments no longer finds the comment. Nothing warns.
# Remedy: move the comment to a line of its own above the parameter; docments reads that, too.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q ruff==0.17.6 fastcore==2.2.39
cd "$folder"
cat > before.py <<'PY'
def plan(
    n_layers: int | None = None,  # the number of layers, checked against the scores that are given here
):
    "Choose layers"
PY
cat > above.py <<'PY'
def plan(
    # the number of layers, checked against the scores that are given here
    n_layers: int | None = None,
):
    "Choose layers"
PY
cp before.py after.py
env/bin/ruff format -q --line-length 88 after.py above.py
cat after.py
cat > show.py <<'PY'
import after
import above
import before
from fastcore.docments import docments

found = {m.__name__: docments(m.plan)["n_layers"] for m in (before, after, above)}
print(found)
assert found["before"] and found["before"] == found["above"], "docments changed"
assert found["after"] is None, "the comment is found again: the finding is out of date"
PY
env/bin/python show.py

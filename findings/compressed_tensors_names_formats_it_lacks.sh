#!/bin/sh
# compressed-tensors 0.20.1: two formats for 2:4 patterns have names and no code.
#
# `CompressionFormat` lists `sparse-24-bitmask` and `marlin-24`, and a class describes the settings
# of the former. No compressor is registered for either, so nothing in the package writes or reads
# such weights. Whoever reads the list would store 2:4 weights this way.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.14.1 transformers==5.23.0 compressed-tensors==0.20.1
cd "$folder"
cat > show.py <<'PY'
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.config import CompressionFormat

named = {f.value for f in CompressionFormat}
written = set(BaseCompressor.registered_names())
print("named, and neither written nor read:", sorted(named - written))
assert {"sparse-24-bitmask", "marlin-24"} <= named - written, "the finding is out of date"
PY
env/bin/python -W ignore show.py

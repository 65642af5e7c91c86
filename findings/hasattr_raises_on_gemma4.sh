#!/bin/sh
# transformers 5.23.0: `hasattr` and `getattr` with a default raise on a Gemma 4 text configuration.
#
# Its full-attention layers have wider heads, so `head_dim` differs from layer to layer. Reading it
# from the whole configuration raises AmbiguousGlobalPerLayerAttributeError, which is a RuntimeError
# and no AttributeError. `hasattr(config, "head_dim")` therefore raises instead of saying no, and
# `getattr(config, "head_dim", None)` does not give None. Code that probes configurations of any
# family for a field is written with exactly these two.
# `config.to_dict()` has the field, with the value that most layers use, and `per_layer_config` with
# the layers that differ.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q transformers==5.23.0
cd "$folder"
cat > show.py <<'PY'
from transformers import Gemma4TextConfig

config = Gemma4TextConfig()
for probe in (lambda: hasattr(config, "head_dim"), lambda: getattr(config, "head_dim", None)):
    try:
        print("returned", probe())
        raise SystemExit("it returns a value now: the finding is out of date")
    except RuntimeError as e:
        print(type(e).__name__, [c.__name__ for c in type(e).__mro__[1:3]])
        assert not isinstance(e, AttributeError)
saved = config.to_dict()
print("head_dim" in saved, saved.get("head_dim"), sorted(saved["per_layer_config"])[:3])
PY
TRANSFORMERS_VERBOSITY=error env/bin/python show.py

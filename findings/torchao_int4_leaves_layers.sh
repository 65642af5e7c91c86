#!/bin/sh
# transformers 5.23.0 with torchao 0.18.0: a folder that says it has 4-bit weights may hold none.
#
# A layer whose width is no multiple of the group size is left as it is, without a warning. If that
# holds for all layers, nothing is quantized, and the saved config.json states 4-bit weights all the
# same. The size of the file is what tells. (On a CPU, a layer that fits ends in an error instead:
# the formats for 4-bit weights need a GPU or the package mslk.)
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.14.1 transformers==5.23.0 torchao==0.18.0 accelerate
cd "$folder"
cat > show.py <<'PY'
import json
import warnings
from pathlib import Path

import torch
from torchao.quantization import Int4WeightOnlyConfig
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, TorchAoConfig

shape = dict(vocab_size=64, hidden_size=80, intermediate_size=160, num_attention_heads=2)
whole = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, **shape)).to(torch.bfloat16)
whole.save_pretrained("whole")
how = dict(dtype=torch.bfloat16, device_map="cpu")
four_bits = TorchAoConfig(Int4WeightOnlyConfig(group_size=64))
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    small = AutoModelForCausalLM.from_pretrained("whole", quantization_config=four_bits, **how)
small.save_pretrained("small")
kinds = {type(m.weight.data).__name__ for m in small.modules() if isinstance(m, torch.nn.Linear)}
said = json.loads(Path("small/config.json").read_text())["quantization_config"]["quant_type"]
sizes = [Path(name, "model.safetensors").stat().st_size for name in ("whole", "small")]
print("config.json:", said["default"]["_type"])
print("weights of linear layers:", *kinds, "- bytes before and after:", *sizes)
about = [w for w in warned if "group" in str(w.message)]
stale = "the finding is out of date"
assert kinds == {"Tensor"} and sizes[1] >= sizes[0], f"layers are quantized now: {stale}"
assert said["default"]["_type"] == "Int4WeightOnlyConfig" and not about, f"it says so now: {stale}"
PY
TRANSFORMERS_VERBOSITY=warning env/bin/python show.py

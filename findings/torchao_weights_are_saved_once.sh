#!/bin/sh
# transformers 5.23.0 with torchao 0.18.0: a model that was read back with 8-bit weights cannot be
# saved again.
#
# Quantizing while loading and saving works, and the folder loads. `save_pretrained` of the loaded
# model raises a NotImplementedError that has no text. Whoever changes a quantized model, its
# generation settings for example, cannot store it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.14.1 transformers==5.23.0 torchao==0.18.0 accelerate
cd "$folder"
cat > show.py <<'PY'
from torchao.quantization import Int8WeightOnlyConfig
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, TorchAoConfig

shape = dict(vocab_size=64, hidden_size=64, intermediate_size=128, num_attention_heads=2)
LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, **shape)).save_pretrained("whole")
quantized = TorchAoConfig(Int8WeightOnlyConfig())
kind = AutoModelForCausalLM
small = kind.from_pretrained("whole", device_map="cpu", quantization_config=quantized)
small.save_pretrained("small")
print("saved once, and read back")
again = kind.from_pretrained("small", device_map="cpu")
try:
    again.save_pretrained("again")
except NotImplementedError as e:
    print("saved a second time:", repr(e))
    assert not str(e), "it says why now: the finding is out of date"
else:
    raise SystemExit("it can be saved again: the finding is out of date")
PY
TRANSFORMERS_VERBOSITY=error env/bin/python -W ignore show.py

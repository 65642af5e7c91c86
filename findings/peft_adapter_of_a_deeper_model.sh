#!/bin/sh
# PEFT 0.21.2: an adapter of a deeper model loads into a shallower one without a word.
#
# A LoRA adapter names layers by number. Loaded into a model from which a layer was removed, the
# weights of later layers land one layer too late, and those of the last one are left out. Nothing
# is raised and nothing is warned about: weights of the adapter that find no module are ignored,
# while modules that find no weights would cause a warning.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q torch==2.14.1 transformers==5.23.0 peft==0.21.2
cd "$folder"
cat > show.py <<'PY'
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

shape = dict(vocab_size=32, hidden_size=16, intermediate_size=32, num_attention_heads=2)


def llama(layers):
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, **shape))


torch.manual_seed(0)
how = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
deep = get_peft_model(llama(4), how)
deep.save_pretrained("adapter")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    shallow = PeftModel.from_pretrained(llama(3), "adapter")
said = [str(w.message) for w in said if "adapter" in str(w.message) or "key" in str(w.message)]
print("warnings about the adapter:", said)
assert not said, "it warns now: the finding is out of date"
names = [f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_A.default.weight" for i in (1, 3)]
same = torch.equal(deep.state_dict()[names[0]], shallow.state_dict()[names[0]])
print("layer 1 of the adapter is in layer 1 of the shallower model:", same)
print("layer 3 of the adapter is in it at all:", names[1] in shallow.state_dict())
assert same and names[1] not in shallow.state_dict()
PY
TRANSFORMERS_VERBOSITY=error env/bin/python -W ignore::FutureWarning show.py

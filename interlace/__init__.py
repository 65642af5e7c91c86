"""INTERLACE Companion: interleaved layer pruning of vision-language models, step by step."""
# Hand-written. Names are imported when they are first used: torch and transformers take seconds, and not every command needs them.
import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "project": ("BadInput", "load_profile", "profiles", "project_root", "provenance", "fingerprint", "seed_everything", "import_extensions"),
    "decoder": ("Decoder", "find_decoder", "layer_inputs"),
    "similarity": ("LayerScores", "score_layers"),
    "selection": ("Plan", "make_plan", "add_strategy"),
    "surgery": ("prune", "pruned_by", "freeze_for", "tuned_layers"),
    "nano_world": ("scene", "conversation"),
    "nano_benchmarks": ("ask", "write_nano_benchmarks", "write_nano_data"),
    "conversations": ("Collator", "calibration_batches", "fitting", "load_samples"),
    "finetuning": ("finetune", "finetune_on", "train", "save"),
    "nano_model": ("nano_model", "nano_processor", "train_nano"),
    "loading": ("load_model",),
    "evaluation": ("evaluate", "Exam", "add_benchmark", "local_exam"),
    "uncertainty": ("figures", "interval", "relative", "with_intervals"),
    "publication": ("publish", "model_card", "mergekit_recipe", "push_to_hub"),
    "finevision": ("write_finevision",),
    "real_benchmarks": ("real_exams", "prepare_benchmarks"),
    "reproduction": ("reproduce",),
    "planner": ("plan_run",),
    "sleb": ("sleb_search", "sleb_plan"),
    "sparsity": ("prune_2_4", "wanda_", "magnitude_"),
    "timing": ("latency",),
    "paper": ("reported", "claims", "paper_table"),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = [*_HOME, "__version__"]


def __getattr__(name):
    if name not in _HOME or name in _PUBLIC: raise AttributeError(f"module 'interlace' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"interlace.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__(): return sorted(__all__)

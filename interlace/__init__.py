"""INTERLACE Companion: interleaved layer pruning of vision-language models, step by step."""
# Hand-written. Names are imported when they are first used: torch and transformers take seconds, and not every command needs them.
import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "core.errors": ("BadInput",),
    "core.files": ("project_root",),
    "core.provenance": ("provenance", "fingerprint", "seed_everything"),
    "core.registry": ("import_extensions",),
    "core.profiles": ("load_profile", "profiles"),
    "method.decoder": ("Decoder", "find_decoder", "layer_inputs"),
    "method.layer_scores": ("LayerScores",),
    "method.similarity": ("score_layers",),
    "method.selection": ("Plan", "make_plan", "add_strategy"),
    "method.surgery": ("prune", "pruned_by", "freeze_for", "tuned_layers"),
    "nano.samples": ("scene", "conversation"),
    "nano.benchmarks": ("ask", "write_nano_benchmarks", "write_nano_data"),
    "data.conversations": ("Collator", "calibration_batches", "fitting", "load_samples"),
    "method.finetuning": ("finetune", "train"),
    "method.several_gpus": ("finetune_on",),
    "method.saving": ("save",),
    "nano.model": ("nano_model", "nano_processor", "train_nano"),
    "models.loading": ("load_model",),
    "evaluation.harness": ("evaluate", "Exam", "add_benchmark", "local_exam"),
    "evaluation.uncertainty": ("figures", "interval", "relative", "with_intervals"),
    "models.cards": ("model_card", "mergekit_recipe"),
    "models.publication": ("publish", "push_to_hub"),
    "models.engines": ("check_engines",),
    "data.finevision": ("write_finevision",),
    "evaluation.benchmarks": ("real_exams", "prepare_benchmarks"),
    "reproduction.pipeline": ("reproduce",),
    "reproduction.run_plan": ("plan_run",),
    "baselines.sleb": ("sleb_search", "sleb_plan"),
    "baselines.sparsity": ("prune_2_4", "wanda_", "magnitude_"),
    "baselines.distillation": ("distill_states",),
    "baselines.merging": ("laco_plan", "merge_dropped"),
    "baselines.blocks": ("shortgpt_plan", "spaced_plan", "angular_distances", "angular_plan", "last_layers_plan"),
    "baselines.compensation": ("replace_by_linear", "compensate_magnitude"),
    "evaluation.latency": ("latency",),
    "reproduction.claims": ("reported", "claims", "paper_table"),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = [*_HOME, "__version__"]


def __getattr__(name):
    if name not in _HOME: raise AttributeError(f"module 'interlace' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"interlace.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__(): return sorted(__all__)

"""The `training:` section: transformers' TrainingArguments under their own names, checked without importing torch.

Names and types come from `training_arguments.json`, a committed snapshot that a test compares with the installed class.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator


class Section(BaseModel):
    """A block of the YAML: unknown keys are refused, values keep their type, nothing changes after loading."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


TRAINING_DEFAULTS: dict[str, Any] = {
    "num_train_epochs": 3.0,
    "learning_rate": 5e-5,
    "per_device_train_batch_size": 32,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "logging_strategy": "epoch",
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "macro_f1",
    "greater_is_better": True,
    "train_sampling_strategy": "group_by_length",
    "early_stopping_patience": 3,
    "early_stopping_threshold": 0.0,
}
"""Our defaults where they differ from transformers' or matter enough to be written into every config.yaml."""

OWNED_KEYS: dict[str, str] = {
    "output_dir": "set run.output_dir and run.name",
    "run_name": "set run.name",
    "seed": "set run.seed",
    "data_seed": "set run.seed",
    "push_to_hub": "set hub.push",
    "hub_model_id": "set hub.repo_id",
    "hub_private_repo": "set hub.private",
    "hub_revision": "set hub.revision",
    "hub_token": "set the environment variable HF_TOKEN",
    "hub_strategy": "set hub.push",
    "hub_always_push": "set hub.push",
    "resume_from_checkpoint": "use the option --resume auto or never",
    "do_train": "leave it out: a run always trains and evaluates",
    "do_eval": "leave it out: a run always trains and evaluates",
    "do_predict": "leave it out: test rows are always predicted",
    "label_names": "set data.label_column",
    "local_rank": "leave it out: the launcher sets it",
    "parallelism_config": "use an accelerate config file",
    "remove_unused_columns": "leave it out: batches hold model inputs only",
    "length_column_name": "leave it out: lengths are known",
    "average_tokens_across_devices": "leave it out: the loss always counts the rows of all processes",
    "prediction_loss_only": "leave it out: evaluation needs the predictions",
    "batch_eval_metrics": "leave it out: metrics are computed once over all rows",
    "eval_do_concat_batches": "leave it out: metrics are computed once over all rows",
    "include_for_metrics": "leave it out: metrics are computed from labels and probabilities",
    "auto_find_batch_size": "set per_device_train_batch_size and gradient_accumulation_steps",
    "logging_nan_inf_filter": "leave it out: a loss that is not finite stops the run",
    "disable_tqdm": "leave it out: progress bars appear on terminals only",
    "per_device_eval_batch_size": "set speed.tokens_per_pass",
    "eval_accumulation_steps": "leave it out: predictions leave the device batch by batch",
    "bf16_full_eval": "leave it out: results are computed in float32, as pipeline() computes",
    "fp16_full_eval": "leave it out: results are computed in float32, as pipeline() computes",
    "restore_callback_states_from_checkpoint": "leave it out: a resumed run always restores them",
    "enable_jit_checkpoint": "leave it out: SIGTERM and SIGUSR1 always end a run after a checkpoint",
    "save_only_model": "leave it out: a run can only go on from whole checkpoints",
    "ignore_data_skip": "leave it out: a resumed run goes on with the rows that come next",
    "save_on_each_node": "leave it out: all nodes share the run folder",
}
"""TrainingArguments that other sections or the program itself decide, with what to do instead."""

METRICS = [
    "loss",
    "accuracy",
    "macro_f1",
    "weighted_f1",
    "macro_precision",
    "macro_recall",
    "balanced_accuracy",
    "mcc",
    "auroc_macro",
    "minority_recall",
]
"""What may select the best epoch."""

MULTI_LABEL_METRICS = [
    "loss",
    "accuracy",
    "macro_f1",
    "micro_f1",
    "samples_f1",
    "weighted_f1",
    "macro_precision",
    "macro_recall",
]
MULTI_LABEL_METRICS += ["mean_average_precision", "minority_recall"]
"""What may select the best epoch of multi-label data."""

OWN_SPECS: dict[str, dict[str, Any]] = {
    "early_stopping_patience": {"types": ["int", "null"]},
    "early_stopping_threshold": {"types": ["float"]},
    "train_sampling_strategy": {
        "types": ["str"],
        "choices": ["group_by_length", "random", "sequential"],
    },
    "metric_for_best_model": {
        "types": ["str"],
        "choices": list(dict.fromkeys([*METRICS, *MULTI_LABEL_METRICS])),
    },
}
"""Keys of the training section that transformers lacks (names of its EarlyStoppingCallback) or allows other values for."""

BOUNDS: dict[str, dict[str, Any]] = {
    "num_train_epochs": {"gt": 0},
    "learning_rate": {"ge": 0},
    "weight_decay": {"ge": 0},
    "per_device_train_batch_size": {"ge": 1},
    "gradient_accumulation_steps": {"ge": 1},
    "label_smoothing_factor": {"ge": 0, "lt": 1},
    "save_total_limit": {"ge": 2},
    "early_stopping_patience": {"ge": 1},
}
"""Ranges that transformers does not check; two checkpoints are the least, so that a crash while saving leaves a whole one."""

TYPES = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "dict": dict[str, Any],
    "list": list[Any],
    "null": None,
}


@cache
def training_specs() -> dict[str, dict[str, Any]]:
    """{name: {types, choices}} of the keys allowed under `training:`, from the committed snapshot of TrainingArguments."""
    snapshot = json.loads(
        files("trainer.config.sections")
        .joinpath("training_arguments.json")
        .read_text(encoding="utf-8")
    )
    return {name: spec for name, spec in snapshot.items() if name not in OWNED_KEYS} | OWN_SPECS


class _TrainingBase(Section):
    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        if "metric_for_best_model" in given:
            given = {"greater_is_better": given["metric_for_best_model"] != "loss"} | given
        if "no" in (given.get("eval_strategy"), given.get("save_strategy")):
            given = {"load_best_model_at_end": False} | given
        if (
            given.get("eval_strategy") == "steps"
        ):  # logging and saving follow, so that each line of the table has its loss and its model
            steps = given.get("eval_steps") or given.get("logging_steps", 500)
            followers = {
                "eval_steps": steps,
                "logging_strategy": "steps",
                "logging_steps": steps,
                "save_strategy": "steps",
                "save_steps": steps,
            }
            return TRAINING_DEFAULTS | followers | given
        return TRAINING_DEFAULTS | given

    @model_validator(mode="after")
    def _can_find_the_best(self) -> "_TrainingBase":
        if (
            getattr(self, "load_best_model_at_end", False)
            and getattr(self, "eval_strategy", None) == "no"
        ):
            raise ValueError(
                "load_best_model_at_end is true, but eval_strategy is 'no'. Set eval_strategy to epoch or steps, or leave both out."
            )
        return self


def _training_section() -> type[Section]:
    fields: dict[str, Any] = {}
    for name, spec in training_specs().items():
        if "choices" in spec:
            kind: Any = Literal[tuple(spec["choices"])]
            kind = kind | None if "null" in spec["types"] else kind
        else:
            kinds = [TYPES[t] for t in spec["types"]]
            kind = kinds[0]
            for other in kinds[1:]:
                kind = kind | other
        fields[name] = (kind, Field(default=TRAINING_DEFAULTS.get(name), **BOUNDS.get(name, {})))
    return create_model("TrainingSection", __base__=_TrainingBase, __doc__=TRAINING_DOC, **fields)


TRAINING_DOC = "transformers' TrainingArguments under their own names, and early_stopping_patience / early_stopping_threshold."
TrainingSection = _training_section()

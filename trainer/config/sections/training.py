"""The `training:` section: transformers' TrainingArguments under their own names, without torch.

Names and types come from `training_arguments.json`, a committed snapshot of the class. A test
compares it with the installed class.
"""

import json
from functools import cache, reduce
from importlib.resources import files
from operator import or_
from typing import Any, Literal

from pydantic import Field, create_model, model_validator

from trainer.config.sections.section import Section, refuse
from trainer.config.sections.tracker_names import TRACKERS

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
"""Defaults that differ from those of transformers, or that every config.yaml should show."""

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
    "average_tokens_across_devices": "leave it out: the loss is always averaged over all processes",
    "prediction_loss_only": "leave it out: evaluation needs the predictions",
    "batch_eval_metrics": "leave it out: metrics are computed once over all rows",
    "eval_do_concat_batches": "leave it out: metrics are computed once over all rows",
    "include_for_metrics": "leave it out: metrics need only labels and probabilities",
    "auto_find_batch_size": "set per_device_train_batch_size and gradient_accumulation_steps",
    "logging_nan_inf_filter": "leave it out: a loss that is not finite stops the run",
    "disable_tqdm": "leave it out: progress bars appear on terminals only",
    "per_device_eval_batch_size": "set speed.tokens_per_pass",
    "eval_accumulation_steps": "leave it out: predictions leave the device batch by batch",
    "bf16_full_eval": "leave it out: results are computed in float32, as pipeline() computes",
    "fp16_full_eval": "leave it out: results are computed in float32, as pipeline() computes",
    "restore_callback_states_from_checkpoint": "leave it out: a resumed run always restores them",
    "enable_jit_checkpoint": "leave it out: SIGTERM and SIGUSR1 always save before they stop",
    "save_only_model": "leave it out: a run can only resume from complete checkpoints",
    "ignore_data_skip": "leave it out: a resumed run continues with the next rows",
    "save_on_each_node": "leave it out: all nodes share the run folder",
}
"""TrainingArguments that are decided elsewhere, and what to do instead."""

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
"""The metrics that can select the best epoch."""

MULTI_LABEL_METRICS = [
    "loss",
    "accuracy",
    "macro_f1",
    "micro_f1",
    "samples_f1",
    "weighted_f1",
    "macro_precision",
    "macro_recall",
    "mean_average_precision",
    "minority_recall",
]
"""The metrics that can select the best epoch with multi-label data."""

REPORT_TO = (
    "Experiment trackers: one name, a list of names, `all` (those that are installed) or `none`."
    " They get the training curve, the config, the final metrics of each class and the pictures,"
    " but never texts of the data. What they write to files is kept in the folder `logs` of the"
    " run. A tracker that fails is a warning and costs no run."
)
"""Meaning of `training.report_to`."""

LAYERWISE_DECAY = (
    "Factor of the learning rate from each layer to the one below it, above 0 and up to 1: the head"
    " has `learning_rate`, the last layer this times the factor, the embeddings the smallest rate."
    " Usual: 0.8 to 0.95. The lower layers then keep more of what pretraining taught them (Howard"
    " and Ruder 2018, https://arxiv.org/abs/1801.06146). Default: all weights have one rate. It"
    " needs `model.mode: full`."
)
"""Meaning of `training.layerwise_learning_rate_decay`."""

REFIT_HEAD = (
    "What happens to the final layer after training; the encoder stays. `balanced`: it is fitted"
    " again with balanced class weights (cRT). `tau_normalised`: the weights of each class are"
    " divided by their norm to the power of tau, from 0 to 1; the tau that is best by"
    " `metric_for_best_model` on validation is used. Both follow Kang et al. 2020,"
    " https://arxiv.org/abs/1910.09217: the encoder learns from the natural distribution, and only"
    " the head is balanced. They need `model.mode: full` and one label a row. Default: the final"
    " layer stays as it was trained."
)
"""Meaning of `training.refit_head`."""

OWN_SPECS: dict[str, dict[str, Any]] = {
    "early_stopping_patience": {"types": ["int", "null"]},
    "early_stopping_threshold": {"types": ["float"]},
    "layerwise_learning_rate_decay": {"types": ["float", "null"], "description": LAYERWISE_DECAY},
    "refit_head": {
        "types": ["str", "null"],
        "choices": ["balanced", "tau_normalised"],
        "description": REFIT_HEAD,
    },
    "train_sampling_strategy": {
        "types": ["str"],
        "choices": ["group_by_length", "random", "sequential"],
    },
    "metric_for_best_model": {
        "types": ["str"],
        "choices": list(dict.fromkeys([*METRICS, *MULTI_LABEL_METRICS])),
    },
    "report_to": {
        "types": ["str", "list", "null"],
        "choices": ["none", "all", *TRACKERS],
        "description": REPORT_TO,
    },
}
"""Keys that TrainingArguments lacks, or defines differently. The names of early stopping are those
of EarlyStoppingCallback."""

BOUNDS: dict[str, dict[str, Any]] = {
    "num_train_epochs": {"gt": 0},
    "learning_rate": {"ge": 0},
    "weight_decay": {"ge": 0},
    "per_device_train_batch_size": {"ge": 1},
    "gradient_accumulation_steps": {"ge": 1},
    "label_smoothing_factor": {"ge": 0, "lt": 1},
    "save_total_limit": {"ge": 2},
    "early_stopping_patience": {"ge": 1},
    "layerwise_learning_rate_decay": {"gt": 0, "le": 1},
}
"""Ranges that transformers does not check. At least two checkpoints are kept, so that a crash while
saving leaves a complete one."""

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
    """Return {name: {types, choices}} of the keys that `training:` allows."""
    snapshot = files("trainer.config.sections").joinpath("training_arguments.json")
    specs = json.loads(snapshot.read_text(encoding="utf-8"))
    return {name: spec for name, spec in specs.items() if name not in OWNED_KEYS} | OWN_SPECS


class _TrainingBase(Section):
    """The part of the section that does not come from the snapshot: derived defaults, and a check.

    With `eval_strategy: steps`, logging and saving use the same steps, so that each line of the
    progress table has its loss and its checkpoint.
    """

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        derived: dict[str, Any] = {}
        if "metric_for_best_model" in given:
            derived["greater_is_better"] = given["metric_for_best_model"] != "loss"
        if "no" in (given.get("eval_strategy"), given.get("save_strategy")):
            derived["load_best_model_at_end"] = False
        if given.get("eval_strategy") == "steps":
            steps = given.get("eval_steps") or given.get("logging_steps", 500)
            derived |= dict.fromkeys(("eval_steps", "logging_steps", "save_steps"), steps)
            derived |= dict.fromkeys(("logging_strategy", "save_strategy"), "steps")
        return TRAINING_DEFAULTS | derived | given

    @model_validator(mode="after")
    def _check(self) -> "_TrainingBase":
        values = self.model_dump(include={"load_best_model_at_end", "eval_strategy"})
        refuse(
            (
                values["load_best_model_at_end"] and values["eval_strategy"] == "no",
                "load_best_model_at_end is true, but eval_strategy is 'no'. Set eval_strategy to"
                " epoch or steps, or leave both out",
            )
        )
        return self


def _field(name: str, spec: dict[str, Any]) -> tuple[Any, Any]:
    kinds: list[Any] = [TYPES[kind] for kind in spec["types"]]
    if "choices" in spec:
        choice: Any = Literal[tuple(spec["choices"])]
        trackers: Any = Literal[tuple(TRACKERS)]
        others = {"list": list[trackers], "null": None}
        kinds = [choice, *(others[kind] for kind in spec["types"] if kind in others)]
    field = Field(
        default=TRAINING_DEFAULTS.get(name),
        description=spec.get("description"),
        **BOUNDS.get(name, {}),
    )
    return reduce(or_, kinds), field


FIELDS: dict[str, Any] = {name: _field(name, spec) for name, spec in training_specs().items()}
TrainingSection = create_model(
    "TrainingSection",
    __base__=_TrainingBase,
    __doc__="transformers' TrainingArguments under their own names, with"
    " `early_stopping_patience` and `early_stopping_threshold`.",
    **FIELDS,
)

"""Settings of how the weights are trained that contradict others."""

from trainer.config.sections.section import refuse
from trainer.config.top_level import TopLevel


def check_stages(config: TopLevel) -> None:
    """Raise ValueError with the first contradiction."""
    mode, training = config.model.mode, config.training_values
    decay = training.get("layerwise_learning_rate_decay")
    reasons = {
        "lora": "which trains adapters beside frozen layers",
        "head": "which trains no layer of the encoder",
    }
    reason = f"model.mode: {mode}, {reasons.get(mode, '')}"
    refits = training.get("refit_head") is not None
    sharded = next((key for key in ("fsdp", "deepspeed") if training.get(key)), None)
    refuse(
        (
            decay is not None and mode != "full",
            f"training.layerwise_learning_rate_decay is set with {reason}. Remove it, or set"
            " model.mode: full",
        ),
        (
            config.model.reinitialise_layers and mode != "full",
            f"model.reinitialise_layers is set with {reason}. Remove it, or set model.mode: full",
        ),
        (
            refits and mode != "full",
            f"training.refit_head is set with {reason}. Remove it, or set model.mode: full",
        ),
        (
            decay is not None and sharded,
            f"training.layerwise_learning_rate_decay is set with training.{sharded}, which joins"
            " the weights of several layers. Remove one of them",
        ),
        (
            refits and sharded,
            f"training.refit_head is set with training.{sharded}; it needs whole weights. Remove"
            " one of them",
        ),
        (
            refits and config.decision.prior is not None,
            "training.refit_head is set with decision.prior, which knows only the balancing of the"
            " first stage. Remove one of them",
        ),
        (
            config.loss.defer_weights is not None and mode == "head",
            "loss.defer_weights is set with model.mode: head, whose fit has no steps. Remove it, or"
            " set model.mode: full or lora",
        ),
    )


def stage_faults(config: TopLevel, *, multi_label: bool) -> list[str]:
    """Return the settings that do not fit multi-label data."""
    if not multi_label:
        return []
    rules = (
        (
            config.training_values.get("refit_head") is not None,
            "training.refit_head is set, which needs one label a row. Remove it.",
        ),
        (
            config.loss.class_weights == "sqrt",
            "loss.class_weights is 'sqrt'; with multi-label data known: balanced,"
            " effective_number, none, or one weight a label.",
        ),
    )
    return [message for is_broken, message in rules if is_broken]

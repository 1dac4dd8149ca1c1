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
            decay is not None and sharded,
            f"training.layerwise_learning_rate_decay is set with training.{sharded}, which joins"
            " the weights of several layers. Remove one of them",
        ),
        (
            config.loss.defer_weights is not None and mode == "head",
            "loss.defer_weights is set with model.mode: head, whose fit has no steps. Remove it, or"
            " set model.mode: full or lora",
        ),
    )

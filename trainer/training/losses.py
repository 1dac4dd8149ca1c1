"""Logits and label ids to one summed loss; torch only; table LOSSES. Legend: N rows, C classes."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits_NC: Tensor, label_ids_N: Tensor, *, class_weights_C: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Weighted cross-entropy.

    Args:
        logits_NC: raw scores, any float dtype, computed in float32.
        label_ids_N: class ids in [0, C); -100 leaves a row out.
        class_weights_C: one weight per class, mean 1 over the rows drawn for training.
        label_smoothing: share of the target spread over all classes, in [0, 1).
    Returns:
        Scalar in nats, summed over rows; the caller divides once by the rows of the whole optimizer step.
    Source: torch.nn.functional.cross_entropy with reduction='sum'.
    """
    return F.cross_entropy(logits_NC.float(), label_ids_N, weight=class_weights_C, ignore_index=-100, label_smoothing=label_smoothing, reduction="sum")


LOSSES: dict[str, Callable[..., Tensor]] = {"cross_entropy": cross_entropy}
"""Losses by name: (logits, label ids, class_weights_C, label_smoothing) -> summed loss."""


def step_loss(name: str, class_weights_C: Tensor, label_smoothing: float) -> Callable[..., Tensor]:
    """The `compute_loss_func` of transformers.Trainer: loss of a micro-batch over the rows of its whole optimizer step.

    The Trainer counts those rows over all micro-batches and processes before the first backward pass
    (`num_items_in_batch`), so the gradient depends on the rows of the step alone, however they are cut.
    """
    loss = LOSSES[name]

    def compute(outputs: object, labels: Tensor, num_items_in_batch: Tensor | int) -> Tensor:
        logits_NC: Tensor = outputs.logits  # type: ignore[attr-defined]
        weights_C = class_weights_C.to(logits_NC.device, torch.float32)
        return loss(logits_NC, labels, class_weights_C=weights_C, label_smoothing=label_smoothing) / num_items_in_batch

    return compute

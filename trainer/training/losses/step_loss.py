"""The loss of an optimizer step, from the loss of its rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.arrays import Floats, Ints
from trainer.training.losses.one_label import IGNORED, LOSSES, NEED_COUNTS, loss_options
from trainer.training.losses.several_labels import (
    MULTI_LABEL_LOSSES,
    NEED_LABEL_COUNTS,
    multi_label_options,
)


@dataclass(frozen=True)
class LossFamily:
    """The losses of rows with one label, or of rows with several.

    Attributes:
        losses: {name: loss}.
        need_counts: the losses that depend on the rows of each label.
        options: function (name, settings, rows of each label, rows) -> further arguments of a loss.
    """

    losses: Mapping[str, Callable[..., Tensor]]
    need_counts: Sequence[str]
    options: Callable[[str, Mapping[str, float], Ints, int], dict[str, Any]]


LOSS_FAMILIES: dict[bool, LossFamily] = {
    False: LossFamily(
        LOSSES,
        NEED_COUNTS,
        lambda name, settings, counts_C, _: loss_options(name, settings, counts_C),
    ),
    True: LossFamily(MULTI_LABEL_LOSSES, NEED_LABEL_COUNTS, multi_label_options),
}
"""{whether a row may have several labels: its losses}."""


def step_loss(
    loss: Callable[..., Tensor],
    class_weights_C: Floats | Tensor,
    options: dict[str, Any] | None = None,
    *,
    label_smoothing: float = 0.0,
) -> Callable[..., Tensor]:
    """Return the `compute_loss_func` of transformers.Trainer: the mean loss of an optimizer step.

    Before the first backward pass the Trainer counts the rows of the step over all micro-batches
    and processes (`num_items_in_batch`). Dividing by this number makes the gradient independent of
    how the rows are split into micro-batches and processes.

    Args:
        loss: an entry of LOSSES or MULTI_LABEL_LOSSES.
        class_weights_C: one weight per class.
        options: further keyword arguments of the loss.
        label_smoothing: share of the target that is spread over all classes; 0 for losses
            without it.
    """
    weights_C = torch.as_tensor(class_weights_C, dtype=torch.float32)
    smoothing = {"label_smoothing": label_smoothing} if label_smoothing else {}
    arguments = {"class_weights_C": weights_C, **(options or {}), **smoothing}
    is_multi_label = loss in MULTI_LABEL_LOSSES.values()
    # copied to a device once: a copy in each step would make the CPU wait for the device
    on_devices: dict[torch.device, dict[str, Any]] = {}

    def compute(
        outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        logits_NC: Tensor = outputs.logits if hasattr(outputs, "logits") else outputs[0]
        shape = logits_NC.shape if is_multi_label else logits_NC.shape[:1]
        if labels is None or labels.shape != shape:
            found = "no labels" if labels is None else f"labels of shape {tuple(labels.shape)}"
            raise ValueError(
                f"the batch has {found}; the loss needs 'labels' of shape {tuple(shape)}. Rows with"
                " several labels need model.config.problem_type = 'multi_label_classification'"
            )
        if num_items_in_batch is None:  # evaluation: the mean over the rows of the batch
            num_items_in_batch = (labels != IGNORED).sum()
        device = logits_NC.device
        if device not in on_devices:
            on_devices[device] = {
                key: value.to(device) if isinstance(value, Tensor) else value
                for key, value in arguments.items()
            }
        return loss(logits_NC, labels, **on_devices[device]) / num_items_in_batch

    return compute

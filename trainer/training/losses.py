"""Logits and label ids to one summed loss; torch only; table LOSSES. Legend: N rows, C classes.

Every loss is computed in float32 from log_softmax, never from the logarithm of a probability, and summed over rows; the
caller divides once by the rows of the whole optimizer step. Label id -100 leaves a row out.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.arrays import Ints

IGNORED = -100


def cross_entropy(
    logits_NC: Tensor, label_ids_N: Tensor, *, class_weights_C: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Weighted cross-entropy.

    Args:
        logits_NC: raw scores, any float dtype, computed in float32.
        label_ids_N: class ids in [0, C); -100 leaves a row out.
        class_weights_C: one weight per class, mean 1 over the rows drawn for training.
        label_smoothing: share of the target spread over all classes, in [0, 1).
    Returns:
        Scalar in nats, summed over rows.
    Source: torch.nn.functional.cross_entropy with reduction='sum'.
    """
    return F.cross_entropy(
        logits_NC.float(),
        label_ids_N,
        weight=class_weights_C,
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
        reduction="sum",
    )


def focal(
    logits_NC: Tensor, label_ids_N: Tensor, *, class_weights_C: Tensor, gamma: float = 2.0
) -> Tensor:
    """Loss that fades rows the model already gets right, so that rare mistakes steer training.

    Args:
        logits_NC, label_ids_N, class_weights_C: as for cross_entropy.
        gamma: focusing exponent, >= 0; 0 gives weighted cross-entropy.
    Returns:
        Scalar in nats, summed over rows.
    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002; alpha is replaced by class_weights_C.
    """
    log_p_NC = F.log_softmax(logits_NC.float(), dim=1)
    kept_N = label_ids_N != IGNORED
    own_N = torch.where(kept_N, label_ids_N, 0)
    log_p_N = log_p_NC.gather(1, own_N[:, None])[:, 0]
    missing_N = -torch.expm1(log_p_N)  # 1 - p, exact where p is near 1
    # the slope of x^gamma is infinite at 0 for gamma < 1, where the row costs nothing anyway
    fading_N = missing_N.clamp(min=torch.finfo(torch.float32).tiny) ** gamma
    return -(class_weights_C[own_N] * fading_N * log_p_N * kept_N).sum()


def logit_adjusted(
    logits_NC: Tensor,
    label_ids_N: Tensor,
    *,
    class_weights_C: Tensor,
    log_prior_C: Tensor,
    tau: float = 1.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of logits shifted by tau times the logarithm of the classes' shares, so that rare classes need a larger margin.

    Args:
        logits_NC, label_ids_N, class_weights_C, label_smoothing: as for cross_entropy.
        log_prior_C: logarithm of each class's share of the rows drawn for training.
        tau: strength; 1 is consistent for the balanced error, and the same as balanced softmax.
    Returns:
        Scalar in nats, summed over rows.
    Source: Menon et al. 2021, https://arxiv.org/abs/2007.07314, equation 10; Ren et al. 2020, https://arxiv.org/abs/2007.10740, for tau 1.
    """
    shifted_NC = logits_NC.float() + tau * log_prior_C
    return cross_entropy(
        shifted_NC, label_ids_N, class_weights_C=class_weights_C, label_smoothing=label_smoothing
    )


def binary_cross_entropy(
    logits_NC: Tensor, targets_NC: Tensor, *, class_weights_C: Tensor
) -> Tensor:
    """Binary cross-entropy of multi-label rows, a question of its own for each label.

    Args:
        logits_NC: raw scores, any float dtype, computed in float32.
        targets_NC: 1 for the labels a row has, else 0; -100 leaves an entry out.
        class_weights_C: positive weights, of each label's rows against the rows without it.
    Returns:
        Scalar in nats, summed over rows and labels. The Trainer counts the entries that are not -100, rows x labels, so
        dividing by its count makes this a mean over labels as well as over rows.
    Source: torch.nn.functional.binary_cross_entropy_with_logits with pos_weight and reduction='sum'.
    """
    is_counted_NC = (targets_NC != IGNORED).float()
    targets_NC = targets_NC.float().clamp(min=0)
    return F.binary_cross_entropy_with_logits(
        logits_NC.float(),
        targets_NC,
        weight=is_counted_NC,
        pos_weight=class_weights_C,
        reduction="sum",
    )


LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "logit_adjusted": logit_adjusted,
    "balanced_softmax": logit_adjusted,
}
"""Losses by name: (logits, label ids, class_weights_C, options of the loss) -> summed loss."""

MULTI_LABEL_LOSSES: dict[str, Callable[..., Tensor]] = {
    "binary_cross_entropy": binary_cross_entropy
}
"""Losses of multi-label rows by name: (logits, targets, class_weights_C) -> summed loss."""


def loss_options(
    name: str, gamma: float | None, tau: float | None, counts_C: Ints
) -> dict[str, Any]:
    """Keyword arguments of a loss from the config's values, None for the default.

    Args:
        counts_C: rows of each class drawn for training, the prior of logit adjustment.
    """
    if name == "focal":
        return {"gamma": 2.0 if gamma is None else gamma}
    if LOSSES[name] is logit_adjusted:
        return {
            "tau": 1.0 if tau is None else tau,
            "log_prior_C": torch.as_tensor(np.log(counts_C / counts_C.sum()), dtype=torch.float32),
        }
    return {}


def step_loss(
    name: str, class_weights_C: Tensor, options: dict[str, Any] | None = None
) -> Callable[..., Tensor]:
    """The `compute_loss_func` of transformers.Trainer: loss of a micro-batch over the rows of its whole optimizer step.

    The Trainer counts those rows over all micro-batches and processes before the first backward pass
    (`num_items_in_batch`), so the gradient depends on the rows of the step alone, however they are cut.

    Args:
        options: keyword arguments of the loss (gamma, tau, log_prior_C, label_smoothing).
    """
    loss = (LOSSES | MULTI_LABEL_LOSSES)[name]
    tensors = {"class_weights_C": class_weights_C.float(), **(options or {})}
    copies: dict[
        torch.device, dict[str, Any]
    ] = {}  # made once: a copy in each step would let the CPU wait for the device

    def compute(
        outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        logits_NC: Tensor = outputs.logits if hasattr(outputs, "logits") else outputs[0]
        if num_items_in_batch is None:  # evaluation: the mean over the rows of the batch
            num_items_in_batch = (labels != IGNORED).sum()
        device = logits_NC.device
        if device not in copies:
            copies[device] = {
                key: value.to(device) if isinstance(value, Tensor) else value
                for key, value in tensors.items()
            }
        return loss(logits_NC, labels, **copies[device]) / num_items_in_batch

    return compute

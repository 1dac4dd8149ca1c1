"""Losses of logits and label ids, for text classification with rare classes.

Every loss is computed in float32 from log_softmax, never from the logarithm of a probability, and
summed over rows. The caller divides it once, by the rows of the whole optimizer step. A row with
label id -100 is left out.

Legend: N rows, C classes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.arrays import Ints
from trainer.errors import listing

IGNORED = -100


def cross_entropy(
    logits_NC: Tensor, label_ids_N: Tensor, *, class_weights_C: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Return the weighted cross-entropy.

    Args:
        logits_NC: raw scores, any float dtype, computed in float32.
        label_ids_N: class ids in [0, C); -100 leaves a row out.
        class_weights_C: one weight per class, mean 1 over the rows drawn for training.
        label_smoothing: share of the target that is spread over all classes, in [0, 1).
    Returns:
        Scalar in nats, summed over rows.
    Source: torch.nn.functional.cross_entropy with reduction='sum'.

    Example:
        >>> weights_C = torch.tensor([1.0, 3.0])
        >>> logits_NC, label_ids_N = torch.zeros(2, 2), torch.tensor([0, 1])
        >>> cross_entropy(logits_NC, label_ids_N, class_weights_C=weights_C)  # (1 + 3) log 2
        tensor(2.7726)
    """
    return F.cross_entropy(
        logits_NC.float(),
        label_ids_N,
        weight=class_weights_C.float(),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
        reduction="sum",
    )


def focal(
    logits_NC: Tensor, label_ids_N: Tensor, *, class_weights_C: Tensor, gamma: float = 2.0
) -> Tensor:
    """Return the focal loss, which reduces the weight of rows that are predicted well.

    Args:
        logits_NC, label_ids_N, class_weights_C: as for cross_entropy.
        gamma: focusing exponent, >= 0; 0 gives weighted cross-entropy.
    Returns:
        Scalar in nats, summed over rows.
    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002; alpha is replaced by class_weights_C.

    Example:
        >>> logits_NC, label_ids_N = torch.zeros(1, 2), torch.tensor([0])
        >>> focal(logits_NC, label_ids_N, class_weights_C=torch.ones(2))  # 0.5 ** 2 * log 2
        tensor(0.1733)
    """
    log_p_NC = F.log_softmax(logits_NC.float(), dim=1)
    kept_N = label_ids_N != IGNORED
    own_N = torch.where(kept_N, label_ids_N, 0)
    log_p_N = log_p_NC.gather(1, own_N[:, None])[:, 0]
    missing_N = -torch.expm1(log_p_N)  # 1 - p, exact where p is near 1
    # for gamma < 1 the slope of x^gamma is infinite at 0, where the loss of the row is 0 anyway
    fading_N = missing_N.clamp(min=torch.finfo(torch.float32).tiny) ** gamma
    return -(class_weights_C.float()[own_N] * fading_N * log_p_N * kept_N).sum()


def logit_adjusted(
    logits_NC: Tensor,
    label_ids_N: Tensor,
    *,
    class_weights_C: Tensor,
    log_prior_C: Tensor,
    tau: float = 1.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross-entropy of logits shifted by tau times the log shares of the classes.

    The shift makes rare classes need a larger margin.

    Args:
        logits_NC, label_ids_N, class_weights_C, label_smoothing: as for cross_entropy.
        log_prior_C: logarithm of the share of each class among the rows drawn for training.
        tau: strength; 1 is consistent for the balanced error, and the same as balanced softmax.
    Returns:
        Scalar in nats, summed over rows.
    Source: Menon et al. 2021, https://arxiv.org/abs/2007.07314, equation 10; for tau 1 also
        Ren et al. 2020, https://arxiv.org/abs/2007.10740.

    Example:
        >>> log_prior_C = torch.tensor([0.75, 0.25]).log()
        >>> logits_NC, label_ids_N = torch.zeros(1, 2), torch.tensor([1])
        >>> logit_adjusted(
        ...     logits_NC, label_ids_N, class_weights_C=torch.ones(2), log_prior_C=log_prior_C
        ... )  # -log 0.25
        tensor(1.3863)
    """
    shifted_NC = logits_NC.float() + tau * log_prior_C
    return cross_entropy(
        shifted_NC, label_ids_N, class_weights_C=class_weights_C, label_smoothing=label_smoothing
    )


LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "logit_adjusted": logit_adjusted,
    "balanced_softmax": logit_adjusted,
}
"""Losses by name: function (logits, label ids, class_weights_C, options) -> summed loss."""

NEED_COUNTS = ("logit_adjusted", "balanced_softmax")
"""The losses that depend on the rows of each class."""


def loss_options(name: str, settings: Mapping[str, float], counts_C: Ints) -> dict[str, Any]:
    """Return the keyword arguments of a loss for the settings of the config.

    Args:
        name: an entry of LOSSES.
        settings: the keys of `loss:` that the loss takes, where they are set.
        counts_C: rows of each class drawn for training, the prior of logit adjustment.
    Raises:
        ValueError: the loss needs the share of a class that has no rows.
    """
    options: dict[str, Any] = dict(settings)
    if name in NEED_COUNTS:
        if empty := np.flatnonzero(counts_C == 0).tolist():
            raise ValueError(
                f"loss is {name!r}, which needs rows of every class; training has none of the"
                f" class ids {listing(empty)}"
            )
        log_prior_C = np.log(counts_C / counts_C.sum())
        options["log_prior_C"] = torch.as_tensor(log_prior_C, dtype=torch.float32)
    return options

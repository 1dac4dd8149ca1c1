"""Losses of multi-label rows, where each label is a yes or no of its own.

Every loss is computed in float32 from logsigmoid, never from the logarithm of a probability, and
summed over rows and labels. The caller divides it once, by the answers of the whole optimizer step.
An answer with target -100 is left out.

Legend: N rows, C labels, n_c training rows of label c.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.arrays import Ints
from trainer.training.losses.one_label import IGNORED

FOCAL_ALPHA = 0.5
"""Factor of both answers in the focal losses of Huang et al. 2021."""
REBALANCE_FLOOR, REBALANCE_SLOPE, REBALANCE_MIDDLE = 0.1, 10.0, 0.9
"""alpha, beta and mu of the smoothing function of Wu et al. 2020, as Huang et al. 2021 set them."""


def binary_cross_entropy(
    logits_NC: Tensor, targets_NC: Tensor, *, class_weights_C: Tensor
) -> Tensor:
    """Return the binary cross-entropy of multi-label rows, where each label is a yes or no.

    Args:
        logits_NC: raw scores, any float dtype, computed in float32.
        targets_NC: 1 for the labels that a row has, else 0; -100 leaves an entry out.
        class_weights_C: weights of rows with a label, relative to rows without it; or (2, C), the
            weights of rows without and with it.
    Returns:
        Scalar in nats, summed over rows and labels. The Trainer counts the entries that are not
        -100 (rows x labels), so division by its count gives a mean over rows and labels.
    Source: torch.nn.functional.binary_cross_entropy_with_logits with pos_weight and
        reduction='sum'.

    Example:
        >>> logits_NC, targets_NC = torch.zeros(1, 2), torch.tensor([[1, 0]])
        >>> binary_cross_entropy(logits_NC, targets_NC, class_weights_C=torch.tensor([3.0, 1.0]))
        tensor(2.7726)
    """
    without_C, with_C = _sides(class_weights_C)
    logits_NC, shares_NC = logits_NC.float(), targets_NC.float().clamp(min=0)
    with_NC = with_C * shares_NC * F.logsigmoid(logits_NC)
    without_NC = without_C * (1 - shares_NC) * F.logsigmoid(-logits_NC)
    return -((targets_NC != IGNORED) * (with_NC + without_NC)).sum()


def binary_focal(
    logits_NC: Tensor, targets_NC: Tensor, *, class_weights_C: Tensor, gamma: float = 2.0
) -> Tensor:
    """Return the focal loss of multi-label rows.

    Args:
        logits_NC, targets_NC, class_weights_C: as for binary_cross_entropy.
        gamma: focusing exponent, >= 0.
    Returns:
        Scalar in nats, summed over rows and labels, times 0.5 (the alpha of the source).
    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, as FL of Huang et al. 2021,
        https://arxiv.org/abs/2109.04712. With weights 1 / (1 - beta^n_c) for both answers it is
        their class-balanced focal loss.

    Example:
        >>> logits_NC, targets_NC = torch.zeros(1, 2), torch.tensor([[1, 0]])
        >>> binary_focal(logits_NC, targets_NC, class_weights_C=torch.ones(2))  # 0.5^2 log 2
        tensor(0.1733)
    """
    weights_NC = _answer_weights(targets_NC, class_weights_C)
    return FOCAL_ALPHA * _focal(logits_NC.float(), targets_NC, weights_NC, gamma)


def negative_tolerant_focal(
    logits_NC: Tensor,
    targets_NC: Tensor,
    *,
    class_weights_C: Tensor,
    prior_shift_C: Tensor,
    gamma: float = 2.0,
    negative_scale: float = 2.0,
) -> Tensor:
    """Return the focal loss with negative-tolerant regularisation.

    The rows without a label, which are many, soon stop pushing its logit down.

    Args:
        logits_NC, targets_NC, class_weights_C: as for binary_cross_entropy.
        prior_shift_C: added to the logits; `prior_bias` times the log odds of each label.
        gamma: focusing exponent, >= 0.
        negative_scale: lambda, > 0; the logits of rows without a label are multiplied by it, and
            their loss is divided by it.
    Returns:
        Scalar in nats, summed over rows and labels, times 0.5.
    Source: NTR-FL and, with weights 1 / (1 - beta^n_c), CB-NTR of Huang et al. 2021,
        https://arxiv.org/abs/2109.04712; the regularisation is that of Wu et al. 2020.

    Example:
        >>> logits_NC, targets_NC = torch.zeros(1, 1), torch.tensor([[0]])
        >>> negative_tolerant_focal(
        ...     logits_NC, targets_NC, class_weights_C=torch.ones(1), prior_shift_C=torch.zeros(1)
        ... )  # 0.5 * 0.5^2 log 2 / 2
        tensor(0.0433)
    """
    weights_NC = _answer_weights(targets_NC, class_weights_C)
    has_label_NC = targets_NC > 0
    shifted_NC = logits_NC.float() + prior_shift_C
    scaled_NC = torch.where(has_label_NC, shifted_NC, negative_scale * shifted_NC)
    weights_NC = torch.where(has_label_NC, weights_NC, weights_NC / negative_scale)
    return FOCAL_ALPHA * _focal(scaled_NC, targets_NC, weights_NC, gamma)


def distribution_balanced(
    logits_NC: Tensor,
    targets_NC: Tensor,
    *,
    class_weights_C: Tensor,
    counts_C: Tensor,
    prior_shift_C: Tensor,
    gamma: float = 2.0,
    negative_scale: float = 2.0,
) -> Tensor:
    """Return the distribution-balanced focal loss.

    A row is drawn once for each of its labels, so a label that occurs with rarer labels is seen too
    often. Every answer is weighted to undo this.

    Args:
        logits_NC, targets_NC, class_weights_C: as for binary_cross_entropy.
        counts_C: training rows of each label, 1 or more.
        prior_shift_C, gamma, negative_scale: as for negative_tolerant_focal.
    Returns:
        Scalar in nats, summed over rows and labels, times 0.5.
    Source: Wu et al. 2020, https://arxiv.org/abs/2007.09654, with the focal term of DB in Huang et
        al. 2021, https://arxiv.org/abs/2109.04712. A row without a label gets the largest weight.

    Example:
        >>> logits_NC, targets_NC = torch.zeros(1, 2), torch.tensor([[1, 0]])
        >>> distribution_balanced(
        ...     logits_NC, targets_NC, class_weights_C=torch.ones(2),
        ...     counts_C=torch.tensor([1, 9]), prior_shift_C=torch.zeros(2),
        ... )
        tensor(0.0764)
    """
    inverse_C = 1 / counts_C.float()
    repeats_N = ((targets_NC > 0) * inverse_C).sum(1, keepdim=True)
    share_NC = inverse_C / repeats_N.clamp(min=torch.finfo(torch.float32).tiny)
    rebalance_NC = REBALANCE_FLOOR + torch.sigmoid(REBALANCE_SLOPE * (share_NC - REBALANCE_MIDDLE))
    return negative_tolerant_focal(
        logits_NC,
        targets_NC,
        class_weights_C=torch.stack(_sides(class_weights_C))[:, None] * rebalance_NC,
        prior_shift_C=prior_shift_C,
        gamma=gamma,
        negative_scale=negative_scale,
    )


def asymmetric(
    logits_NC: Tensor,
    targets_NC: Tensor,
    *,
    class_weights_C: Tensor,
    gamma: float = 4.0,
    gamma_positive: float = 0.0,
    margin: float = 0.05,
) -> Tensor:
    """Return the asymmetric loss, which forgets rows without a label that are easy.

    Args:
        logits_NC, targets_NC, class_weights_C: as for binary_cross_entropy.
        gamma: focusing exponent of the rows without a label, >= 0.
        gamma_positive: focusing exponent of the rows with a label, >= 0.
        margin: probability that is subtracted for rows without a label, in [0, 1).
    Returns:
        Scalar in nats, summed over rows and labels.
    Source: Ridnik et al. 2021, https://arxiv.org/abs/2009.14119, equations 5 to 7.

    Example:
        >>> logits_NC, targets_NC = torch.zeros(1, 2), torch.tensor([[1, 0]])
        >>> asymmetric(logits_NC, targets_NC, class_weights_C=torch.ones(2), margin=0.0)
        tensor(0.7365)
    """
    logits_NC = logits_NC.float()
    weights_NC = _answer_weights(targets_NC, class_weights_C)
    log_p_NC = F.logsigmoid(logits_NC)
    p_NC, not_p_NC = torch.sigmoid(logits_NC), torch.sigmoid(-logits_NC)
    with_NC = _power(not_p_NC, gamma_positive) * log_p_NC
    shifted_NC = (p_NC - margin).clamp(min=0)
    log_rest_NC = (
        torch.log((not_p_NC + margin).clamp(max=1)) if margin else F.logsigmoid(-logits_NC)
    )
    without_NC = _power(shifted_NC, gamma) * log_rest_NC
    is_counted_NC = targets_NC != IGNORED
    return -(weights_NC * is_counted_NC * torch.where(targets_NC > 0, with_NC, without_NC)).sum()


def _sides(class_weights_C: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights of rows without and with each label, in float32."""
    class_weights_C = class_weights_C.float()
    if class_weights_C.ndim > 1:
        return class_weights_C[0], class_weights_C[1]
    return torch.ones_like(class_weights_C), class_weights_C


def _answer_weights(targets_NC: Tensor, class_weights_C: Tensor) -> Tensor:
    """Return the weight of each answer, (N, C)."""
    without_C, with_C = _sides(class_weights_C)
    return torch.where(targets_NC > 0, with_C, without_C)


def _focal(logits_NC: Tensor, targets_NC: Tensor, weights_NC: Tensor, gamma: float) -> Tensor:
    """Return the weighted sum of (1 - q)^gamma * -log q, where q is the answer's probability."""
    signed_NC = torch.where(targets_NC > 0, logits_NC, -logits_NC)
    is_counted_NC = targets_NC != IGNORED
    fading_NC = _power(torch.sigmoid(-signed_NC), gamma)
    return -(weights_NC * is_counted_NC * fading_NC * F.logsigmoid(signed_NC)).sum()


def _power(p_NC: Tensor, exponent: float) -> Tensor:
    """Return p^exponent, with a finite slope at 0."""
    return p_NC.clamp(min=torch.finfo(torch.float32).tiny) ** exponent


MULTI_LABEL_LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": binary_cross_entropy,
    "focal": binary_focal,
    "ntr_focal": negative_tolerant_focal,
    "cb_ntr": negative_tolerant_focal,
    "distribution_balanced": distribution_balanced,
    "asymmetric": asymmetric,
}
"""Losses by name: function (logits, targets, class_weights_C, options) -> summed loss."""

NEED_LABEL_COUNTS = ("ntr_focal", "cb_ntr", "distribution_balanced")
"""The losses that depend on the rows of each label."""


def multi_label_options(
    name: str, settings: Mapping[str, float], counts_C: Ints, num_rows: int
) -> dict[str, Any]:
    """Return the keyword arguments of a loss for the settings of the config.

    Args:
        name: an entry of MULTI_LABEL_LOSSES.
        settings: the keys of `loss:` that the loss takes, where they are set.
        counts_C: rows of each label drawn for training; a label without rows counts as one.
        num_rows: rows drawn for training.
    """
    options: dict[str, Any] = dict(settings)
    if name not in NEED_LABEL_COUNTS:
        return options
    # a label of all rows or of none has no finite log odds
    counts_C = np.clip(counts_C, 1, max(num_rows - 1, 1))
    log_odds_C = np.log(counts_C / np.maximum(num_rows - counts_C, 1))
    shift_C = options.pop("prior_bias", 0.05) * log_odds_C
    options["prior_shift_C"] = torch.as_tensor(shift_C, dtype=torch.float32)
    if name == "distribution_balanced":
        options["counts_C"] = torch.as_tensor(counts_C)
    return options

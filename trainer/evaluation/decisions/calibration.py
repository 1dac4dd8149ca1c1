"""Calibrate probabilities on validation rows: class priors and temperature.

Legend: N rows, C classes, B rows of a block.
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize_scalar

from trainer.arrays import Array, Floats, Ints
from trainer.data.labels.class_order import by_class
from trainer.errors import ConfigError, listing
from trainer.evaluation.blocks import CACHED_BYTES, Rows, row_blocks
from trainer.evaluation.scores import log_softmax


def training_log_prior(counts_C: Ints, class_weights_C: Floats, tau: float = 0.0) -> Floats:
    """Return log q, the log of the class prior that training taught the model.

    The prior is proportional to the rows drawn times the class weight. Logit adjustment divides it
    by the rows' share to the power of tau.

    Source: Elkan 2001 (https://dl.acm.org/doi/10.5555/1642194.1642224) for rows and weights;
    Menon et al. 2021 (https://arxiv.org/abs/2007.07314) for tau.
    """
    log_q_C = np.log(counts_C) + np.log(class_weights_C) - tau * np.log(counts_C / counts_C.sum())
    return log_softmax(log_q_C[None, :])[0]


def target_log_prior(prior: str | dict[str, float], natural_C: Ints, labels: list[str]) -> Floats:
    """Return log pi, the log of the class prior that `decision.prior` asks for.

    Args:
        natural_C: rows of each class after cleaning and before balancing.
    Raises:
        ConfigError: the prior does not name exactly the labels of the data.
    """
    if isinstance(prior, dict):
        given = by_class(prior, labels, "decision.prior")
        if missing := set(labels) - set(given):
            raise ConfigError(
                f"decision.prior leaves out {listing(missing)}. Give a share for each label of the "
                f"data: {listing(labels)}."
            )
        shares_C = np.array([given[label] for label in labels])
    else:
        shares_C = natural_C.astype(np.float64) if prior == "natural" else np.ones(len(labels))
    return np.log(shares_C / shares_C.sum())


def natural_weights(label_ids_N: Ints, natural_C: Ints | Floats) -> Floats:
    """Return one weight per row, with mean 1, that gives the classes their natural shares.

    Args:
        natural_C: number of rows, or share, of each class.
    """
    counts_C = np.bincount(label_ids_N, minlength=len(natural_C))
    weights_N = (natural_C / np.maximum(counts_C, 1))[label_ids_N]
    return weights_N / weights_N.mean()


def fit_temperature(
    logits_NC: Rows, label_ids_N: Ints, weights_N: Floats, log_q_C: Floats | None = None
) -> float:
    """Return the temperature T with the least mean log loss on validation rows.

    Without log q, T minimises the loss of softmax(z / T), as Guo et al. 2017 define it
    (https://arxiv.org/abs/1706.04599). The training loss does not matter: calibrated logits,
    log p(c | x), give T = 1.
    With log q, T minimises the loss of softmax((z - log q) / T + log of validation's own prior), so
    that T does not absorb the difference of the priors: logits log p(x | c) + log q give T = 1.

    Args:
        weights_N: one weight per row.
        log_q_C: the training prior, if the decision corrects the prior.
    """
    base_C, own_C = np.zeros((2, logits_NC.shape[1]))
    if log_q_C is not None:
        shares_C = np.bincount(label_ids_N, weights=weights_N, minlength=len(log_q_C))
        base_C, own_C = log_q_C, np.log(np.maximum(shares_C, 1e-12) / shares_C.sum())
    log_p_N = np.empty(len(label_ids_N))

    def loss(log_t: float) -> float:
        for rows, block_BC in row_blocks(logits_NC, CACHED_BYTES):
            z_BC = block_BC.astype(np.float64)
            z_BC -= base_C
            z_BC /= np.exp(log_t)
            z_BC += own_C
            z_BC -= z_BC.max(axis=1, keepdims=True)
            own_B = z_BC[np.arange(len(z_BC)), label_ids_N[rows]]
            log_p_N[rows] = own_B - np.log(np.exp(z_BC, out=z_BC).sum(axis=1))
        return float(-(weights_N * log_p_N).mean())

    return best_temperature(loss)


def label_log_odds(counts_C: Ints, num_rows: int) -> Floats:
    """Return the log odds of each label among rows that may have several.

    The count of rows with the label, or without it, is at least a half, so that they are finite.
    """
    return np.log(np.maximum(counts_C, 0.5)) - np.log(np.maximum(num_rows - counts_C, 0.5))


def fit_label_temperature(
    logits_NC: Rows, targets_NC: Array, log_odds_q_C: Floats | None = None
) -> float:
    """Return the temperature T with the least binary cross-entropy on multi-label validation rows.

    Args:
        targets_NC: the true label sets.
        log_odds_q_C: log odds that training taught, if the decision corrects the prior; as log q
            in `fit_temperature`.
    """
    base_C, own_C = np.zeros((2, logits_NC.shape[1]))
    if log_odds_q_C is not None:
        base_C, own_C = log_odds_q_C, label_log_odds(targets_NC.sum(axis=0), len(targets_NC))

    def loss(log_t: float) -> float:
        total = 0.0
        for rows, block_BC in row_blocks(logits_NC, CACHED_BYTES):
            z_BC = (block_BC.astype(np.float64) - base_C) / np.exp(log_t) + own_C
            total += float((np.logaddexp(0, z_BC) - z_BC * targets_NC[rows]).sum())
        return total / targets_NC.size

    return best_temperature(loss)


def best_temperature(loss: Callable[[float], float]) -> float:
    """Return the temperature between 0.05 and 20 with the least loss.

    Args:
        loss: function of the logarithm of the temperature.
    """
    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))

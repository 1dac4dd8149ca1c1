"""Validation logits to a Decision: prior correction, temperature, thresholds or costs; NumPy and SciPy; no model, no files.

Legend: N rows, C classes. A model trained on balanced rows gives log p(c | x) = z_c with a prior q that is not the data's.
With a prior pi to correct to, probabilities are softmax((z - log q) / T + log pi); without one softmax(z / T). Both are affine
in the logits: scale * z + shift.
Everything here is fitted on validation rows; no function takes test rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar

from trainer.arrays import Array, Bools, Floats, Ints
from trainer.data.labels.class_order import by_class
from trainer.errors import ConfigError, DataError, listing
from trainer.evaluation.blocks import (
    CACHED_BYTES,
    MOST_IN_MEMORY,
    ByColumn,
    Rows,
    Taken,
    row_blocks,
)
from trainer.evaluation.scores import Correction, LogProbabilities, corrected, log_softmax
from trainer.evaluation.thresholds import THRESHOLDS, fit_thresholds

if TYPE_CHECKING:
    from trainer.config.sections.balancing import DecisionSection

LEAST_ROWS = 20
"""A class with fewer validation rows keeps the neutral threshold: its best one would be noise."""
NUM_FOLDS = 5


@dataclass(frozen=True)
class Decision:
    """From logits to probabilities and labels.

    Attributes:
        temperature: T; above 1 the model was too sure.
        shift_C: added to logits / T.
        thresholds_C: label = argmax p_c / t_c; None: argmax p_c. They add up to 1.
        costs_CC: cost of each predicted class (column) by true class (row); the label is the class of least expected cost.
        neutral: labels whose threshold could not be fitted, and why.
    """

    temperature: float
    shift_C: Floats
    thresholds_C: Floats | None = None
    costs_CC: Floats | None = None
    neutral: tuple[str, ...] = ()

    def correct(self, logits_NC: Array) -> Floats:
        """Logits with prior and temperature corrected."""
        return corrected(logits_NC, self.correction)

    @property
    def correction(self) -> Correction:
        """What is done to logits."""
        return Correction(self.temperature, self.shift_C)

    def log_probabilities(self, logits_NC: Array) -> Floats:
        """Corrected log probabilities."""
        return log_softmax(self.correct(logits_NC))

    def decide(self, log_p_NC: Floats) -> Ints:
        """Label id of each row."""
        if self.costs_CC is not None:
            return (np.exp(log_p_NC) @ self.costs_CC).argmin(axis=1)
        return (
            log_p_NC if self.thresholds_C is None else log_p_NC - np.log(self.thresholds_C)
        ).argmax(axis=1)

    def judge(self, logits_NC: Rows) -> tuple[LogProbabilities, Ints]:
        """Log probabilities, computed whenever they are read, and label id of each row, a block at a time."""
        log_p_NC = LogProbabilities(logits_NC, (self.correction,))
        predicted_N = np.empty(len(log_p_NC), np.int64)
        for rows, log_p_BC in log_p_NC.blocks():
            predicted_N[rows] = self.decide(log_p_BC)
        return log_p_NC, predicted_N

    def figures(self, labels: list[str]) -> dict[str, Any]:
        """Plain values for metrics.json."""
        values: dict[str, Any] = {
            "temperature": self.temperature,
            "shift": dict(zip(labels, self.shift_C.tolist(), strict=True)),
        }
        if self.thresholds_C is not None:
            values |= {
                "thresholds": dict(zip(labels, self.thresholds_C.tolist(), strict=True)),
                "neutral": list(self.neutral),
            }
        return values | ({"costs": self.costs_CC.tolist()} if self.costs_CC is not None else {})

    def to_config(self, labels: list[str], *, is_folded: bool) -> dict[str, Any]:
        """Plain values for the saved model's config.

        Args:
            is_folded: whether temperature and shift stand in the weights of the model already.
        """
        values: dict[str, Any] = (
            {} if is_folded else {"temperature": self.temperature, "shift": self.shift_C.tolist()}
        )
        if self.thresholds_C is not None:
            values["thresholds"] = dict(zip(labels, self.thresholds_C.tolist(), strict=True))
        if self.costs_CC is not None:
            values["costs"] = self.costs_CC.tolist()
        return values

    @classmethod
    def from_config(cls, values: dict[str, Any], labels: list[str]) -> "Decision":
        """What a saved model's `config.decision` says; of {} a plain argmax."""
        thresholds, costs = values.get("thresholds"), values.get("costs")
        return cls(
            temperature=values.get("temperature", 1.0),
            shift_C=np.array(values.get("shift", [0.0] * len(labels))),
            thresholds_C=np.array([thresholds[label] for label in labels]) if thresholds else None,
            costs_CC=np.array(costs) if costs else None,
        )


def training_log_prior(counts_C: Ints, class_weights_C: Floats, tau: float = 0.0) -> Floats:
    """log q: the prior that training taught, rows drawn times class weight, over their share to the power tau where logits are adjusted.

    Source: Elkan 2001 (https://dl.acm.org/doi/10.5555/1642194.1642224) for rows and weights; Menon et al. 2021 for tau.
    """
    log_q_C = np.log(counts_C) + np.log(class_weights_C) - tau * np.log(counts_C / counts_C.sum())
    return log_softmax(log_q_C[None, :])[0]


def target_log_prior(prior: str | dict[str, float], natural_C: Ints, labels: list[str]) -> Floats:
    """Return log pi of `decision.prior`.

    Args:
        natural_C: rows of each class, cleaned and before balancing.
    Raises:
        ConfigError: shares for other labels than the data's.
    """
    if isinstance(prior, dict):
        given = by_class(prior, labels, "decision.prior")
        if missing := set(labels) - set(given):
            raise ConfigError(
                f"decision.prior leaves out {listing(missing)}; it needs a share for each label in the data: {listing(labels)}."
            )
        shares_C = np.array([given[label] for label in labels])
    else:
        shares_C = natural_C.astype(np.float64) if prior == "natural" else np.ones(len(labels))
    return np.log(shares_C / shares_C.sum())


def cost_matrix(costs: dict[str, dict[str, float]], labels: list[str]) -> Floats:
    """(C, C) costs by true and predicted class; what is left out costs 1, a right answer 0.

    Raises:
        ConfigError: a label that the data lack.
    """
    rows = {
        true: by_class(row, labels, "decision.costs")
        for true, row in by_class(costs, labels, "decision.costs").items()
    }
    return np.array(
        [
            [rows.get(true, {}).get(guess, float(true != guess)) for guess in labels]
            for true in labels
        ]
    )


def natural_weights(label_ids_N: Ints, natural_C: Ints | Floats) -> Floats:
    """One weight per validation row, mean 1, under which its classes have the natural shares (`balance.scope: all`) or others given."""
    counts_C = np.bincount(label_ids_N, minlength=len(natural_C))
    weights_N = (natural_C / np.maximum(counts_C, 1))[label_ids_N]
    return weights_N / weights_N.mean()


def fit_temperature(
    logits_NC: Rows, label_ids_N: Ints, weights_N: Floats, log_q_C: Floats | None = None
) -> float:
    """Return the temperature T of least mean log loss on validation rows.

    Without a prior to correct, T minimises the loss of softmax(z / T). This is the definition of Guo et al. 2017
    (https://arxiv.org/abs/1706.04599): it asks nothing of the loss that trained the model, and logits log p(c | x) give 1.
    With one, T minimises the loss of softmax((z - log q) / T + log of validation's own shares), so that T does not
    absorb the mismatch of priors: logits log p(x | c) + log q give 1.

    Args:
        weights_N: one weight per row.
        log_q_C: prior that training taught, where it is corrected.
    """
    base_C, own_C = np.zeros(logits_NC.shape[1]), np.zeros(logits_NC.shape[1])
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

    return float(
        np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x)
    )


def plan_decision(
    section: "DecisionSection",
    *,
    labels: list[str],
    counts_C: Ints,
    class_weights_C: Floats,
    natural_C: Ints,
    tau: float,
) -> dict[str, Any] | None:
    """The arguments of `fit_decision` that are known before training; None where the section asks for nothing.

    Args:
        counts_C: rows of each class drawn for training.
        natural_C: rows of each class, cleaned and before balancing.
        tau: strength of logit adjustment, 0 without.
    Raises:
        ConfigError: labels that the data lack.
    """
    if not section.is_set:
        return None
    return {
        "labels": labels,
        "log_q_C": training_log_prior(counts_C, class_weights_C, tau),
        "log_target_C": None
        if section.prior is None
        else target_log_prior(section.prior, natural_C, labels),
        "temperature": section.temperature,
        "thresholds": section.thresholds,
        "min_precision": section.min_precision or 0.9,
        "costs_CC": cost_matrix(section.costs, labels) if section.costs is not None else None,
        "minority": int(natural_C.argmin()),
    }


def fit_decision(
    logits_NC: Rows,
    label_ids_N: Ints,
    *,
    labels: list[str],
    log_q_C: Floats,
    log_target_C: Floats | None = None,
    temperature: bool = False,
    thresholds: str | None = None,
    min_precision: float = 0.9,
    costs_CC: Floats | None = None,
    minority: int = 0,
    weights_N: Floats | None = None,
    fitted_C: Bools | None = None,
) -> Decision:
    """The decision of validation rows.

    Args:
        log_q_C: prior that training taught, see `training_log_prior`.
        log_target_C: prior of the rows to come, see `target_log_prior`; thresholds are then fitted for rows with it, by weighting
            validation. None: no prior is corrected, and thresholds are fitted for validation as it is.
        thresholds: a name in THRESHOLDS, or None.
        minority: class id that two-class thresholds are fitted for.
        weights_N: one weight per row; left out: 1.
        fitted_C: classes whose thresholds are fitted; left out: those with LEAST_ROWS rows or more.
    Raises:
        DataError: no validation rows.
    """
    if len(label_ids_N) == 0:
        raise DataError(
            "decision needs validation rows, and there are none. Give split.validation or data.validation, or remove the section decision."
        )
    weights_N = np.ones(len(label_ids_N)) if weights_N is None else weights_N
    corrected_C = None if log_target_C is None else log_q_C
    t = fit_temperature(logits_NC, label_ids_N, weights_N, corrected_C) if temperature else 1.0
    shift_C = np.zeros(len(labels)) if log_target_C is None else log_target_C - log_q_C / t
    decision = Decision(t, shift_C, costs_CC=costs_CC)
    if thresholds in THRESHOLDS:
        counts_C = np.bincount(label_ids_N, minlength=len(labels))
        fitted_C = counts_C >= LEAST_ROWS if fitted_C is None else fitted_C
        row_weights_N = (
            natural_weights(label_ids_N, np.exp(log_target_C))
            if log_target_C is not None
            else weights_N
        )
        log_p_NC = LogProbabilities(logits_NC, (decision.correction,))
        found_C, failed = fit_thresholds(
            log_p_NC,
            label_ids_N,
            row_weights_N,
            fitted_C,
            minority,
            THRESHOLDS[thresholds],
            min_precision,
        )
        few = [
            f"{labels[c]} ({counts_C[c]} validation rows, {LEAST_ROWS} needed)"
            for c in np.flatnonzero(~fitted_C)
        ]
        short = [f"{labels[c]} (precision {min_precision:g} is not reached)" for c in failed]
        decision = replace(decision, thresholds_C=found_C / found_C.sum(), neutral=(*few, *short))
    return decision


def fit_and_cross_fit(
    logits_NC: Array,
    label_ids_N: Ints,
    weights_N: Floats,
    plan: dict[str, Any],
    *,
    seed: int,
    folder: Path | None = None,
) -> tuple[Decision, tuple[LogProbabilities, Ints]]:
    """The decision of validation rows, and what `cross_fit` says of them; thresholds of the same classes are fitted in every fold.

    Args:
        folder: where a copy of large logits by column lies for a while, see `blocks.room`.
    """
    fitted_C = np.bincount(label_ids_N, minlength=len(plan["labels"])) >= LEAST_ROWS
    by_column = plan["thresholds"] in THRESHOLDS and logits_NC.nbytes > MOST_IN_MEMORY
    read_NC = (
        ByColumn(logits_NC, np.flatnonzero(fitted_C).tolist(), folder) if by_column else logits_NC
    )

    def fit(rows: Ints) -> Decision:
        return fit_decision(
            Taken(read_NC, rows),
            label_ids_N[rows],
            weights_N=weights_N[rows],
            fitted_C=fitted_C,
            **plan,
        )

    return fit(np.arange(len(label_ids_N))), cross_fit(logits_NC, label_ids_N, fit, seed=seed)


def cross_fit(
    logits_NC: Rows, label_ids_N: Ints, fit: Callable[[Ints], Decision], *, seed: int
) -> tuple[LogProbabilities, Ints]:
    """Log probabilities and label ids of validation rows, each from a decision that was fitted without it.

    Args:
        fit: positions of validation rows -> their Decision.
    """
    predicted_N = np.empty(len(label_ids_N), np.int64)
    order = np.lexsort((np.random.default_rng(seed).permutation(len(label_ids_N)), label_ids_N))
    folds_N = np.empty(len(label_ids_N), np.int64)
    folds_N[order] = (
        np.arange(len(label_ids_N)) % NUM_FOLDS
    )  # stratified, whatever the size of a class
    decisions = [
        fit(np.flatnonzero(folds_N != fold)) for fold in np.unique(folds_N)
    ]  # of few rows fewer folds, from 0
    log_p_NC = LogProbabilities(
        logits_NC, tuple(decision.correction for decision in decisions), folds_N
    )
    for rows, log_p_BC in log_p_NC.blocks():
        for fold, decision in enumerate(decisions):
            held = np.flatnonzero(folds_N[rows] == fold)
            predicted_N[rows][held] = decision.decide(log_p_BC[held])
    return log_p_NC, predicted_N

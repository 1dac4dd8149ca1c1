"""Settings that contradict each other across sections, and settings that do not fit the data."""

from typing import get_args

from trainer.config.sections.balancing import (
    SYNTHESIS_METHODS,
    DecisionSection,
    LossName,
    MultiLabelLossName,
)
from trainer.config.sections.data import SplitSection
from trainer.config.sections.section import refuse
from trainer.config.sections.training import METRICS, MULTI_LABEL_METRICS
from trainer.config.top_level import TopLevel
from trainer.errors import listing


def _check_given_files(config: TopLevel) -> None:
    data, split = config.data, config.split
    refuse(
        (
            config.balance.scope == "all" and data.source is None,
            "balance.scope is 'all' with given files; it needs data.source, one pool to balance"
            " and split",
        ),
        (
            split and data.validation is not None,
            "split is set although data.validation is given; remove split, or give train: alone",
        ),
        (
            split and split.test and data.test is not None,
            "split.test is set although data.test is given; remove one of them",
        ),
    )


def _check_augment(config: TopLevel) -> None:
    if config.augment.generator == "none":
        return
    text_column = config.data.text_column
    refuse(
        (
            config.balance.scope == "all",
            "augment.generator is set with balance.scope: all; synthetic rows join the training"
            " rows alone. Set balance.scope: train",
        ),
        (
            config.balance.by,
            "augment.generator is set with balance.by; synthetic rows have no domain. Set"
            " generator: none, or remove balance.by",
        ),
        (
            not isinstance(text_column, str) and len(text_column) > 1,
            "augment.generator is set with a text pair in data.text_column; only single texts can"
            " be written. Set generator: none",
        ),
        (
            config.data.streaming,
            "augment.generator is set with data.streaming; rows are chosen before new ones could"
            " be written. Set generator: none",
        ),
    )


def _check_split_column(config: TopLevel) -> None:
    if not config.data.split_column:
        return
    split = config.split
    refuse(
        (
            split and split.model_copy(update={"rare_classes": "keep"}) != SplitSection(),
            "split is set with data.split_column, which says where each row belongs; remove one of"
            " them (split.rare_classes may stay)",
        ),
        (
            config.balance.scope == "all",
            "balance.scope is 'all' with data.split_column; it needs one pool to balance and split."
            " Set balance.scope: train",
        ),
    )


def _check_by_time(config: TopLevel) -> None:
    if not (config.split and config.split.by_time):
        return
    refuse(
        (
            config.data.streaming,
            "split.by_time is set with data.streaming, which splits rows by their text. Remove"
            " by_time, or set data.streaming: false",
        ),
        (
            config.ensemble.kind == "folds",
            "split.by_time is set with ensemble.kind: folds, which validate on rows of all times."
            " Set ensemble.kind: seeds",
        ),
        (
            config.balance.scope == "all",
            "split.by_time is set with balance.scope: all, which balances rows before they are"
            " split. Set balance.scope: train",
        ),
    )


def _check_streaming(config: TopLevel) -> None:
    if not config.data.streaming:
        return
    refuse(
        (
            config.balance.scope == "all",
            "balance.scope is 'all' with data.streaming; rows are chosen after the split. Set"
            " balance.scope: train",
        ),
        (
            config.ensemble.kind == "folds",
            "ensemble.kind: folds with data.streaming, which splits rows once, by their text."
            " Set ensemble.kind: seeds",
        ),
        (
            config.split and config.split.primary_label,
            "split.primary_label is set with data.streaming, which needs one label a row. Remove"
            " it, or set data.streaming: false",
        ),
    )


def _check_mode(config: TopLevel) -> None:
    mode, method = config.model.mode, config.balance.method
    refuse(
        (
            method in SYNTHESIS_METHODS and mode != "head",
            f"balance.method {method} makes new embeddings, never text, so it needs model.mode:"
            f" head; model.mode is '{mode}'. Set it, or balance by oversample or"
            " loss.class_weights",
        ),
        (
            mode == "head" and method == "class_balanced_batches",
            f"balance.method {method} shapes optimizer steps, and model.mode head has none; use"
            " method power with alpha: 0",
        ),
        (
            mode == "head" and config.balance.resample_each_epoch,
            "balance.resample_each_epoch draws rows every epoch, and model.mode head has no epochs;"
            " remove one of them",
        ),
        (
            mode != "full" and config.hub.every == "save",
            f"hub.every is 'save' with model.mode: {mode}, whose checkpoints contain no complete"
            " model. Set hub.every: end",
        ),
    )


def _check_ensemble(config: TopLevel) -> None:
    ensemble, balance, data = config.ensemble, config.balance, config.data
    draws_rows = (
        balance.method != "none"
        and balance.scope == "train"
        and (balance.resample_each_epoch or not data.streaming)
    )  # otherwise all members train on the same rows
    refuse(
        (
            ensemble.size > 1 and config.hub.push,
            "hub.push with ensemble.size above 1: a repository holds one model; push a member's"
            " model folder, or set ensemble.size: 1",
        ),
        (
            ensemble.size > 1
            and ensemble.kind == "seeds"
            and config.model.mode == "head"
            and not draws_rows,
            "ensemble.kind: seeds with model.mode: head: members that see the same rows are equal;"
            " set kind: folds, or method: undersample",
        ),
        (
            ensemble.kind == "folds" and (data.validation is not None or balance.scope == "all"),
            "ensemble.kind: folds cuts validation itself; remove data.validation, and"
            " balance.scope: all",
        ),
    )


def _check_loss(config: TopLevel) -> None:
    loss, prior = config.loss, config.decision.prior
    smoothing = config.training_values.get("label_smoothing_factor")
    refuse(
        (
            loss.name == "focal" and smoothing,
            "training.label_smoothing_factor has no meaning for loss.name: focal; remove it, or use"
            " cross_entropy or logit_adjusted",
        ),
        (
            prior is not None and loss.name == "focal" and loss.gamma != 0,
            "decision.prior has no known correction for loss.name: focal with gamma above 0; its"
            " scores are no log probabilities. Remove it, or set loss.name: cross_entropy",
        ),
        (
            prior is not None and smoothing,
            "decision.prior has no known correction for training.label_smoothing_factor; remove one"
            " of them",
        ),
    )


CHECKS = (
    _check_given_files,
    _check_augment,
    _check_split_column,
    _check_by_time,
    _check_streaming,
    _check_mode,
    _check_ensemble,
    _check_loss,
)
"""The checks of the config, in the order in which they are made."""


def check_conflicts(config: TopLevel) -> None:
    """Raise ValueError with the first contradiction between two sections."""
    for check in CHECKS:
        check(config)


def problem_type_faults(config: TopLevel, *, multi_label: bool) -> list[str]:
    """Return the settings that do not fit data with one label per row, or multi-label data."""
    metric = config.training_values["metric_for_best_model"]
    metrics = MULTI_LABEL_METRICS if multi_label else METRICS
    kind = "multi-label data" if multi_label else "one label a row"
    wrong_metric = (
        metric not in metrics,
        f"training.metric_for_best_model is '{metric}'; with {kind} known: {listing(metrics)}.",
    )
    rules = [wrong_metric, *(_multi_label_rules if multi_label else _one_label_rules)(config)]
    return [message for is_broken, message in rules if is_broken]


def _one_label_rules(config: TopLevel) -> list[tuple[object, str]]:
    return [
        (
            config.split and config.split.primary_label,
            "split.primary_label is set, but the data hold one label a row. Remove it, or set"
            " data.label_columns.",
        ),
        (
            config.loss.name not in get_args(LossName),
            f"loss.name is '{config.loss.name}', which needs multi-label data; with one label a row"
            f" known: {listing(get_args(LossName))}.",
        ),
        (
            config.ensemble.size > 1
            and config.ensemble.combine == "mean"
            and config.decision.thresholds,
            "ensemble.combine: mean with decision.thresholds: members decide by their own"
            " thresholds. Set ensemble.combine: majority.",
        ),
        *one_label_decision_rules(config.decision),
    ]


def one_label_decision_rules(decision: DecisionSection) -> list[tuple[object, str]]:
    """Return (whether it is broken, message) of each rule for decisions on one label per row."""
    return [
        (
            decision.thresholds in ("micro_f1", "common"),
            f"decision.thresholds is '{decision.thresholds}', which needs multi-label data; with"
            " one label a row known: cost, f1, recall_at_precision.",
        ),
        (
            decision.at_least_one,
            "decision.at_least_one is set, which needs multi-label data: here each row gets one"
            " label. Remove it.",
        ),
        (
            decision.at_most is not None,
            "decision.at_most is set, which needs multi-label data: here each row gets one label."
            " Remove it.",
        ),
    ]


def _multi_label_rules(config: TopLevel) -> list[tuple[object, str]]:
    return [
        (
            config.training_values.get("label_smoothing_factor"),
            "training.label_smoothing_factor is set, which multi-label data cannot have."
            " Remove it.",
        ),
        (
            config.loss.name not in get_args(MultiLabelLossName),
            f"loss.name is '{config.loss.name}'; with multi-label data known:"
            f" {listing(get_args(MultiLabelLossName))}.",
        ),
        (
            config.loss.weights_mean != "rows",
            "loss.weights_mean is set, but the weights of multi-label data are not rescaled."
            " Remove it.",
        ),
        (
            config.balance.method in SYNTHESIS_METHODS,
            f"balance.method is '{config.balance.method}', which needs one label a row: a point"
            " between two rows has no label set of its own. Set oversample, floor or power, or"
            " loss.class_weights: balanced.",
        ),
        *multi_label_decision_rules(config.decision, config.loss.name),
        (
            config.decision.is_set and config.balance.scope == "all",
            "decision is set with balance.scope: all, and multi-label validation rows cannot be"
            " weighted to natural shares. Set balance.scope: train.",
        ),
    ]


def multi_label_decision_rules(
    decision: DecisionSection, loss: str = "cross_entropy"
) -> list[tuple[object, str]]:
    """Return (whether it is broken, message) of each rule for decisions on multi-label rows."""
    kinds = {kind for costs in (decision.costs or {}).values() for kind in costs}
    values = [cost for costs in (decision.costs or {}).values() for cost in costs.values()]
    return [
        (
            decision.prior not in (None, "natural"),
            "decision.prior is not 'natural', the only one known with multi-label data: shares of"
            " several labels do not sum to 1. Set decision.prior: natural.",
        ),
        (
            decision.prior is not None and loss != "cross_entropy",
            f"decision.prior has no known correction for multi-label data with loss.name: {loss};"
            " its scores are no log odds. Remove it, or set loss.name: cross_entropy.",
        ),
        (
            kinds - {"missed", "wrong"},
            f"decision.costs names {listing(kinds - {'missed', 'wrong'})}; with multi-label data"
            " needed: {label: {missed: cost, wrong: cost}}.",
        ),
        (
            min(values, default=1.0) <= 0,
            "decision.costs holds 0; with multi-label data every cost is above 0.",
        ),
    ]

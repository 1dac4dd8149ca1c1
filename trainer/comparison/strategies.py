"""The config of each strategy, and the configs that cannot be compared. Imports no torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from trainer.comparison.settings import setting_of, settings_of, strategy_of, tune_faults
from trainer.comparison.statistics.comparison_result import LABEL_SET_METRICS, METRICS
from trainer.config.config import Config, check_config
from trainer.config.conflicts import problem_type_faults
from trainer.config.sections.balancing import SYNTHESIS_METHODS, LossName, MultiLabelLossName
from trainer.config.sections.compare import BASELINE, DEFAULT_STRATEGIES, PRESETS
from trainer.config.stage_conflicts import stage_faults
from trainer.config.yaml_source import YamlSource
from trainer.data.reading.sources import check_source
from trainer.errors import ConfigError, listing
from trainer.extras import require

KINDS = {False: "one label a row", True: "multi-label data"}
"""{whether a row may have several labels: such data, in words}."""
NUM_SHORTLISTED = 2
"""Number of strategies that `compare.quick` trains as configured, besides the baseline."""
WITH_THRESHOLDS = " + thresholds"
"""What the name of a strategy ends with if its thresholds are fitted after training."""


def fitting(config: Config) -> Config:
    """Return the config with strategies that fit the first rows of the data.

    Raises:
        TrainerError: a package is missing, the data cannot be read, or the config or a strategy
            cannot be compared.
    """
    require("compare", "equipoise compare")
    multi_label = check_source(config.data, config.balance.by)
    config = with_strategies(config, multi_label=multi_label)
    refuse(config, multi_label=multi_label)
    return config


def with_strategies(config: Config, *, multi_label: bool) -> Config:
    """Return the config with the strategies to compare, by default those that fit the data."""
    if config.compare.strategies is not None:
        return config
    default = {"strategies": [*DEFAULT_STRATEGIES[multi_label]]}
    return config.model_copy(update={"compare": config.compare.model_copy(update=default)})


def refuse(config: Config, *, multi_label: bool) -> None:
    """Refuse a config that cannot be compared.

    Args:
        multi_label: whether a row may have any number of labels.
    Raises:
        ConfigError: with all reasons why the config or a strategy cannot be compared.
        MissingPackageError: a package that a strategy needs is not installed.
    """
    if faults := [
        *_faults(config),
        *_data_faults(config, multi_label),
        *_strategy_faults(config, multi_label),
    ]:
        raise ConfigError("\n".join(faults))
    for strategy in config.compare.overrides:
        if makes_embeddings(config, strategy):
            require("augment", f"compare.strategies: {strategy}", "imblearn")


def _faults(config: Config) -> Iterator[str]:
    folds = config.compare.folds
    if config.ensemble.size > 1:
        yield (
            f"ensemble.size is {config.ensemble.size}; compare trains single models. "
            "Set ensemble.size: 1."
        )
    if config.balance.scope == "all":
        yield (
            "balance.scope is 'all'; strategies are compared on the same validation rows. "
            "Set balance.scope: train."
        )
    if config.data.streaming:
        yield (
            "data.streaming chooses rows by balance.method, which the strategies replace. "
            "Set data.streaming: false, and data.limit for a sample."
        )
    if folds and config.data.validation is not None:
        yield "compare.folds cuts validation itself. Remove it, or data.validation."
    if folds and config.split and config.split.by_time:
        yield "compare.folds validates on rows of all times. Remove it, or split.by_time."
    if config.compare.quick and config.model.mode == "head":
        yield "compare.quick is set with model.mode: head, which is quick already. Remove it."
    yield from tune_faults(config)


def _data_faults(config: Config, multi_label: bool) -> Iterator[str]:
    """Yield why the metric and the strategies do not fit the data."""
    metric, kind = config.compare.metric, KINDS[multi_label]
    metrics = LABEL_SET_METRICS if multi_label else METRICS
    if metric not in metrics:
        yield f"compare.metric is '{metric}'; with {kind} known: {listing(metrics)}."
    if unfit := [
        name for name, of in config.compare.overrides.items() if not _fits(of, multi_label)
    ]:
        known = [name for name, of in PRESETS.items() if _fits(of, multi_label)]
        verb = "needs" if len(unfit) == 1 else "need"
        yield (
            f"compare.strategies: {listing(unfit)} {verb} {KINDS[not multi_label]}; with {kind}"
            f" known: {listing(known)}."
        )


def _fits(sections: dict[str, Any], multi_label: bool) -> bool:
    """Return whether the loss, the weights and the method of a strategy fit the data."""
    loss, method = sections.get("loss", {}), sections.get("balance", {}).get("method")
    losses = get_args(MultiLabelLossName if multi_label else LossName)
    needs_one_label = method in SYNTHESIS_METHODS or loss.get("class_weights") == "sqrt"
    return loss.get("name", "cross_entropy") in losses and not (multi_label and needs_one_label)


def _unfit_settings(config: Config, multi_label: bool) -> list[str]:
    return [
        *problem_type_faults(config, multi_label=multi_label),
        *stage_faults(config, multi_label=multi_label),
    ]


def _strategy_faults(config: Config, multi_label: bool) -> Iterator[str]:
    is_quick, shared = config.compare.quick, "but all strategies share one reading and one split"
    common: list[str] = []  # faults of the config, which every strategy has; `none` comes first
    for strategy, sections in config.compare.overrides.items():
        if not _fits(sections, multi_label):
            continue
        modes = ["head"] if is_quick else []
        if not is_quick or not makes_embeddings(config, strategy):
            modes.append(config.model.mode)
        try:
            configs = [strategy_config(config, strategy, Path("run"), mode=mode) for mode in modes]
        except ConfigError as error:
            yield str(error)
            continue
        faults = _unfit_settings(configs[0], multi_label)
        if strategy == BASELINE:
            yield from (common := faults)
        yield from (
            f"compare.strategies: {strategy}: {words}" for words in faults if words not in common
        )
        balance = configs[0].balance
        if balance.scope == "all":
            yield (
                f"compare.strategies: {strategy} has balance.scope: all, {shared}. "
                "Set scope: train."
            )
        elif balance.by not in (None, config.balance.by):
            yield (
                f"compare.strategies: {strategy} has balance.by: {balance.by}, {shared}. "
                f"Set balance.by: {balance.by} in the config, so that the column is read."
            )


def strategy_config(
    config: Config, group: str, path: Path, *, mode: str | None = None, seed: int | None = None
) -> Config:
    """Return the config of a run that trains a strategy, with one of the settings to try.

    Args:
        group: the strategy, or the strategy with its setting.
        path: the run folder.
    Raises:
        ConfigError: the strategy does not fit the config.
    """
    values, strategy = config.to_dict(), strategy_of(group)
    values["training"] |= settings_of(config)[setting_of(group)]
    values["run"] |= {"name": path.name, "output_dir": str(path.parent), "num_processes": 1}
    values["run"] |= {} if seed is None else {"seed": seed}
    values["model"] |= {"mode": mode} if mode else {}
    replaced = ("balance", "loss", "ensemble", "compare", "report", "hub")
    values |= {section: {} for section in replaced} | config.compare.overrides[strategy]
    values["compare"] = {"thresholds": config.compare.thresholds}
    return check_config(YamlSource(f"compare.strategies: {strategy}", values))


def with_thresholds(config: Config) -> Config | None:
    """Return the config of a training with fitted thresholds, or None if it is compared once."""
    if not config.compare.thresholds or config.decision.thresholds is not None:
        return None
    decision = config.decision.model_copy(update={"thresholds": "f1"})
    return config.model_copy(update={"decision": decision})


def compared_names(config: Config, strategy: str) -> list[str]:
    """Return the names under which a trained strategy is compared."""
    decision = config.compare.overrides[strategy].get("decision")
    given = decision.get("thresholds") if decision else config.decision.thresholds
    has_both = config.compare.thresholds and given is None
    return [strategy, *([strategy + WITH_THRESHOLDS] if has_both else [])]


def trained_name(name: str) -> str:
    """Return the strategy whose trainings give a compared strategy."""
    return name.removesuffix(WITH_THRESHOLDS)


def trained_strategies(config: Config) -> tuple[str, ...]:
    """Return the strategies to train, the baseline first.

    `thresholds` is not trained if the baseline is compared with thresholds anyway.
    """
    has_baseline = BASELINE + WITH_THRESHOLDS in compared_names(config, BASELINE)
    return tuple(
        name for name in config.compare.overrides if not (has_baseline and name == "thresholds")
    )


def sections_of(config: Config, name: str) -> dict[str, Any]:
    """Return the sections that a compared strategy replaces."""
    sections = config.compare.overrides[trained_name(name)]
    if name == trained_name(name):
        return sections
    decision = config.decision.model_dump(exclude_defaults=True) | sections.get("decision", {})
    return sections | {"decision": {k: v for k, v in decision.items() if v} | {"thresholds": "f1"}}


def makes_embeddings(config: Config, strategy: str) -> bool:
    """Return whether a strategy needs a frozen encoder."""
    return config.compare.overrides[strategy].get("balance", {}).get("method") in SYNTHESIS_METHODS

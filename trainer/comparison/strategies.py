"""Of the story: the config that a strategy of a comparison makes, and what cannot be compared. Knows neither torch nor files."""

from pathlib import Path

from trainer.config.config import Config, check_config
from trainer.config.sections.balancing import SYNTHESIS_METHODS
from trainer.config.yaml_source import YamlSource
from trainer.errors import ConfigError

MULTI_LABEL = "compare needs one label a row; with several labels a row train the strategies one by one and put the runs side by side: report."


def refuse(config: Config) -> None:
    """Raises ConfigError for what cannot be compared, or a strategy that the config cannot have; all faults together."""
    faults = []
    if config.ensemble.size > 1:
        faults.append(
            f"ensemble.size is {config.ensemble.size}; compare trains single models. Set ensemble.size: 1."
        )
    if config.balance.scope == "all":
        faults.append(
            "balance.scope is 'all'; strategies are compared on the same validation rows. Set balance.scope: train."
        )
    if config.data.streaming:
        faults.append(
            "data.streaming chooses rows by balance.method, which is what is compared. Set data.streaming: false, and data.limit for a sample."
        )
    if config.compare.folds and config.data.validation is not None:
        faults.append("compare.folds cuts validation itself; remove it, or data.validation.")
    if config.compare.folds and config.split and config.split.by_time:
        faults.append("compare.folds validates on rows of all times; remove it, or split.by_time.")
    if config.compare.quick and config.model.mode == "head":
        faults.append(
            "compare.quick is set with model.mode: head, which is quick already. Remove it."
        )
    modes = ["head", config.model.mode] if config.compare.quick else [config.model.mode]
    for strategy in config.compare.overrides:
        for mode in modes:
            if config.compare.quick and mode != "head" and makes_embeddings(config, strategy):
                continue  # in the shortlist alone
            try:
                derived = strategy_config(config, strategy, Path("cell"), mode=mode)
            except ConfigError as error:
                faults.append(str(error))
                break
            if derived.balance.scope == "all" or derived.balance.by not in (
                None,
                config.balance.by,
            ):
                key = (
                    "scope: all" if derived.balance.scope == "all" else f"by: {derived.balance.by}"
                )
                remedy = (
                    "Set scope: train."
                    if derived.balance.scope == "all"
                    else f"Set balance.by: {derived.balance.by} in the config, so that it is read."
                )
                faults.append(
                    f"compare.strategies: {strategy} has balance.{key}, but all strategies share one reading and one split. {remedy}"
                )
                break
    if faults:
        raise ConfigError("\n".join(faults))


def strategy_config(
    config: Config, strategy: str, path: Path, *, mode: str | None = None, seed: int | None = None
) -> Config:
    """The config of a run with a strategy's sections in place of the config's.

    Args:
        path: the run folder.
    Raises:
        ConfigError: a strategy that does not go with the config.
    """
    values = config.to_dict()
    run = {"name": path.name, "output_dir": str(path.parent), "num_processes": 1} | (
        {} if seed is None else {"seed": seed}
    )
    values |= {
        "run": values["run"] | run,
        "model": values["model"] | ({"mode": mode} if mode else {}),
    }
    values |= {
        section: {} for section in ("balance", "loss", "ensemble", "compare", "report", "hub")
    } | config.compare.overrides[strategy]
    return check_config(YamlSource(f"compare.strategies: {strategy}", values))


def makes_embeddings(config: Config, strategy: str) -> bool:
    """Whether a strategy needs the frozen encoder."""
    return config.compare.overrides[strategy].get("balance", {}).get("method") in SYNTHESIS_METHODS

"""The settings that `compare.tune` gives every strategy to try. Imports no torch.

A group is a strategy with one setting: its trainings differ only in seed and fold. The group of the
setting of the config has the name of the strategy alone; others are `focal@learning_rate=2e-05`.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

from trainer.config.config import Config

AS_CONFIGURED = ""
"""The setting of the config itself."""
UNSET = -1
"""`max_steps` of a config that sets no number of steps."""


def shown(value: float) -> str:
    """Return a value in words, so that no two values of a list have the same."""
    return f"{value:.12g}"


def own_values(config: Config) -> dict[str, float]:
    """Return {key: value of the config} of the keys that are tuned."""
    given = config.training_values
    tuned = config.compare.tune.values if config.compare.tune else {}
    return {key: given.get(key) or UNSET for key in tuned}


def settings_of(config: Config) -> dict[str, dict[str, Any]]:
    """Return {setting: its values}, the setting of the config first.

    The order in which the config lists keys and values does not matter.
    """
    found: dict[str, dict[str, Any]] = {AS_CONFIGURED: {}}
    if config.compare.tune:
        own, tuned = own_values(config), config.compare.tune.values
        for values in product(*tuned.values()):
            setting = dict(zip(tuned, values, strict=True))
            if setting != own:
                found[",".join(f"{key}={shown(value)}" for key, value in setting.items())] = setting
    return found


def group_of(strategy: str, setting: str) -> str:
    """Return the group of a strategy with a setting."""
    return f"{strategy}@{setting}" if setting else strategy


def strategy_of(group: str) -> str:
    """Return the strategy of a group."""
    return group.partition("@")[0]


def setting_of(group: str) -> str:
    """Return the setting of a group."""
    return group.partition("@")[2]


def values_of(config: Config, setting: str) -> dict[str, float]:
    """Return {key: value} of a setting; a length that the config does not set is left out."""
    values = settings_of(config)[setting] or own_values(config)
    return {key: value for key, value in values.items() if value != UNSET}


def setting_words(config: Config, setting: str) -> str:
    """Return the values of a setting in words."""
    words = (f"{key} {shown(value)}" for key, value in values_of(config, setting).items())
    return ", ".join(words) or "as configured"


def tune_faults(config: Config) -> Iterator[str]:
    """Yield why the settings of `compare.tune` cannot be tried with this config."""
    asked, tune = config.compare, config.compare.tune
    if tune is None:
        return
    if config.model.mode == "head":
        yield (
            "compare.tune is set with model.mode: head. Heads have no learning rate and no steps; "
            "each chooses its own l2 (model.head.l2). Remove compare.tune."
        )
    if asked.selection == "last_step":
        yield (
            "compare.tune chooses settings on selection rows, and compare.selection: last_step has "
            "none. Set compare.selection: nested."
        )
    if tune.varies_length and asked.amount is not None:
        key = "max_steps" if tune.max_steps else "num_train_epochs"
        yield (
            f"compare.amount fixes the length of all trainings, and compare.tune.{key} varies it. "
            "Remove one."
        )
    if tune.num_train_epochs and (config.training_values.get("max_steps") or -1) > 0:
        yield (
            "compare.tune.num_train_epochs is set with training.max_steps, which overrides epochs. "
            "Tune max_steps, or remove training.max_steps."
        )
    if len(settings_of(config)) == 1:
        yield (
            "compare.tune holds only the setting of the config, so there is nothing to choose. "
            "Give more values."
        )


def tune_words(config: Config, num_strategies: int) -> str:
    """Return how many trainings a comparison with tuned settings takes, in words.

    Args:
        num_strategies: strategies to train; a shortlist has at most three.
    """
    asked, num_settings = config.compare, len(settings_of(config))
    factors = {"strategies": num_strategies, "settings": num_settings, "seeds": asked.seeds}
    factors |= {"folds": asked.folds} if asked.folds else {}
    product_words = " x ".join(f"{count} {name}" for name, count in factors.items())
    total = num_strategies * num_settings * asked.seeds * (asked.folds or 1)
    assert asked.tune is not None
    tried = (
        f"{key} {', '.join(shown(value) for value in values)}"
        for key, values in asked.tune.values.items()
    )
    return (
        f"compare.tune: {product_words} = {total:,} trainings. Every strategy tries "
        f"{'; '.join(tried)} and the setting of the config "
        f"({setting_words(config, AS_CONFIGURED)}), and takes the one that is best on the "
        "selection rows."
    )

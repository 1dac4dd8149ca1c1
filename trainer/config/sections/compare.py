"""The `compare:` section: which ways of balancing are set against each other, and under which conditions."""

from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from trainer.config.sections.balancing import (
    SYNTHESIS_METHODS,
    BalanceSection,
    DecisionSection,
    LossName,
    LossSection,
    RowMethod,
    Weighting,
)
from trainer.config.sections.training import Section

BASELINE: Literal["none"] = "none"
"""The strategy that all others are measured against; always trained."""
WEIGHT_NAMES = {"balanced": "class_weights", "sqrt": "sqrt_weights"}
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    BASELINE: {},
    **{
        method: {"balance": {"method": method}}
        for method in (*get_args(RowMethod), *SYNTHESIS_METHODS)
        if method != "none"
    },
    **{
        WEIGHT_NAMES.get(kind, kind): {"loss": {"class_weights": kind}}
        for kind in get_args(Weighting)
        if kind != "none"
    },
    **{name: {"loss": {"name": name}} for name in get_args(LossName) if name != "cross_entropy"},
    "thresholds": {"decision": {"thresholds": "f1"}},
}
"""Strategies by name: {name: sections that it sets}."""
Preset = Literal[
    "none",
    "undersample",
    "oversample",
    "floor",
    "power",
    "class_balanced_batches",
    "adasyn",
    "borderline_smote",
    "smote",
    "class_weights",
    "sqrt_weights",
    "effective_number",
    "focal",
    "logit_adjusted",
    "balanced_softmax",
    "thresholds",
]
"""The names of `PRESETS`."""
DEFAULT_STRATEGIES: list[Preset] = [
    BASELINE,
    "undersample",
    "oversample",
    "floor",
    "class_weights",
    "focal",
    "logit_adjusted",
]
Metric = Literal[
    "macro_f1",
    "accuracy",
    "balanced_accuracy",
    "minority_recall",
    "minority_f1",
    "mcc",
    "weighted_f1",
]


class StrategySection(Section):
    """A strategy of one's own: what stands here replaces the presets' defaults."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)
    """What tables call it: letters, digits, dot, dash, underscore."""
    balance: BalanceSection = BalanceSection()
    """As the section `balance`."""
    loss: LossSection = LossSection()
    """As the section `loss`."""
    decision: DecisionSection | None = None
    """As the section `decision`; left out: that of the config."""


class CompareSection(Section):
    """What `compare` trains: every strategy with every seed, on the same rows, with the same budget. Ordinary training reads none of it."""

    strategies: list[Preset | StrategySection] = Field(default=[*DEFAULT_STRATEGIES], min_length=1)
    """Names (`none`, methods of `balance`, `class_weights`, `sqrt_weights`, `effective_number`, losses, `thresholds`), or mappings
    {name, balance, loss, decision}. Each replaces the config's `balance` and `loss`; `none` is always among them."""
    seeds: int = Field(default=5, ge=1, le=100)
    """Trainings of each strategy, with the seeds `run.seed`, `run.seed` + 1 ...; the split is that of `run.seed` for all."""
    budget: Literal["steps", "rows", "seconds"] = "steps"
    """What is equal for all: optimizer `steps`; training `rows` seen, repeats counted; or `seconds` of training, measured once for each
    strategy. (`model.mode: head` has no steps and is fitted to its end.)"""
    amount: float | None = Field(default=None, gt=0)
    """How many steps, rows or seconds; left out: the steps or rows that `none` takes by `training`."""
    metric: Metric = "macro_f1"
    """What the strategies are ranked by."""
    folds: int | None = Field(default=None, ge=2, le=20)
    """Validate on every row that is not test, by so many folds, in place of one validation split: so many times the work."""
    quick: bool = False
    """First compare all on the frozen encoder (`model.mode: head`), which takes minutes; then train the best two of them, and `none`, as configured."""

    @model_validator(mode="after")
    def _agree(self) -> "CompareSection":
        names = [
            strategy if isinstance(strategy, str) else strategy.name for strategy in self.strategies
        ]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"strategies holds '{name}' twice; give each another name")
        if any(
            not isinstance(strategy, str) and strategy.name == BASELINE
            for strategy in self.strategies
        ):
            raise ValueError(
                f"strategies holds a mapping named '{BASELINE}', which is the baseline; give it another name"
            )
        if self.budget == "seconds" and self.amount is None:
            raise ValueError(
                "budget is 'seconds' without amount; set amount: the seconds that each training may take"
            )
        return self

    @property
    def overrides(self) -> dict[str, dict[str, Any]]:
        """{strategy: sections that replace the config's}, the baseline first."""
        found: dict[str, dict[str, Any]] = {BASELINE: {}}
        for strategy in self.strategies:
            if isinstance(strategy, str):
                found[strategy] = PRESETS[strategy]
            else:
                found[strategy.name] = {
                    key: value.model_dump()
                    for key in ("balance", "loss", "decision")
                    if (value := getattr(strategy, key)) is not None
                }
        return found

"""The `compare:` section: which strategies against imbalance are compared, and how."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from trainer.config.sections.balancing import (
    SYNTHESIS_METHODS,
    BalanceSection,
    DecisionSection,
    LossName,
    LossSection,
    MultiLabelLossName,
    RowMethod,
    Weighting,
)
from trainer.config.sections.section import Section, refuse

BASELINE: Literal["none"] = "none"
"""The strategy that all others are compared with. It is always trained."""
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
    **{
        name: {"loss": {"name": name}}
        for name in dict.fromkeys((*get_args(LossName), *get_args(MultiLabelLossName)))
        if name != "cross_entropy"
    },
    "thresholds": {"decision": {"thresholds": "f1"}},
}
"""The named strategies: {name: the sections that it sets}."""
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
    "ntr_focal",
    "cb_ntr",
    "distribution_balanced",
    "asymmetric",
    "thresholds",
]
"""The names of `PRESETS`."""
DEFAULT_STRATEGIES: dict[bool, tuple[Preset, ...]] = {
    False: (
        "none",
        "undersample",
        "oversample",
        "floor",
        "class_weights",
        "focal",
        "logit_adjusted",
    ),
    True: ("none", "power", "class_weights", "focal", "asymmetric", "distribution_balanced"),
}
"""{whether a row may have several labels: the strategies without `compare.strategies`}."""
Metric = Literal[
    "macro_f1",
    "accuracy",
    "balanced_accuracy",
    "minority_recall",
    "minority_f1",
    "mcc",
    "weighted_f1",
    "micro_f1",
    "mean_average_precision",
]

Selection = Literal["auto", "nested", "last_step"]


class StrategySection(Section):
    """A strategy that you define. Its sections replace those of the config."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)
    """Name of the strategy in tables: letters, digits, dots, dashes and underscores."""
    balance: BalanceSection = BalanceSection()
    """The section `balance` of the strategy."""
    loss: LossSection = LossSection()
    """The section `loss` of the strategy."""
    decision: DecisionSection | None = None
    """The section `decision` of the strategy. Default: that of the config."""


class CompareTuneSection(Section):
    """Settings of `training` that every strategy tries, each with its values."""

    learning_rate: list[Annotated[float, Field(gt=0)]] | None = Field(default=None, min_length=1)
    """Values of `training.learning_rate`."""
    num_train_epochs: list[Annotated[float, Field(gt=0)]] | None = Field(default=None, min_length=1)
    """Values of `training.num_train_epochs`."""
    max_steps: list[Annotated[int, Field(gt=0)]] | None = Field(default=None, min_length=1)
    """Values of `training.max_steps`, in place of `num_train_epochs`."""

    @model_validator(mode="after")
    def _check(self) -> "CompareTuneSection":
        refuse(
            (
                not self.values,
                "is empty; name a setting with its values, such as learning_rate: [2e-5, 5e-5]",
            ),
            (
                self.num_train_epochs and self.max_steps,
                "holds num_train_epochs and max_steps, which both set the length; remove one",
            ),
            *(
                (len({*listed}) < len(listed), f"{key} holds a value twice; remove one")
                for key, listed in self.values.items()
            ),
        )
        return self

    @property
    def values(self) -> dict[str, list[float]]:
        """{key of `training`: its values in ascending order}, without keys that are not set."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: sorted(listed) for name, listed in given.items() if listed}

    @property
    def varies_length(self) -> bool:
        """Whether trials differ in their length."""
        return bool(self.num_train_epochs or self.max_steps)


class CompareSection(Section):
    """What `equipoise compare` trains: every strategy with every seed, on the same rows and with
    the same budget. Ordinary training does not use this section.
    """

    strategies: list[Preset | StrategySection] | None = Field(default=None, min_length=1)
    """Names (`none`, methods of `balance`, `class_weights`, `sqrt_weights`, `effective_number`,
    losses, `thresholds`) or mappings {name, balance, loss, decision}. Each replaces the sections
    `balance` and `loss` of the config. `none` is always included. Default: `none`, `undersample`,
    `oversample`, `floor`, `class_weights`, `focal` and `logit_adjusted`; with multi-label data
    `none`, `power`, `class_weights`, `focal`, `asymmetric` and `distribution_balanced`. A strategy
    that needs the other kind of data is refused."""
    seeds: int = Field(default=5, ge=1, le=100)
    """Number of trainings per strategy, with the seeds `run.seed`, `run.seed` + 1 and so on. All of
    them use the split of `run.seed`."""
    budget: Literal["steps", "rows", "seconds"] = "steps"
    """What is equal for all trainings: optimizer `steps`; training `rows` seen, counting
    repetitions; or `seconds` of training, measured once per strategy. (`model.mode: head` has no
    steps; it is fitted until it converges.)"""
    amount: float | None = Field(default=None, gt=0)
    """Number of steps, rows or seconds. Default: the steps or rows that `none` takes with the
    section `training`."""
    metric: Metric = "macro_f1"
    """Metric by which the strategies are ranked. `micro_f1` and `mean_average_precision` are for
    multi-label data, `balanced_accuracy` and `mcc` for one label a row."""
    folds: int | None = Field(default=None, ge=2, le=20)
    """Number of folds. If set, the strategies are validated on all rows that are not test, one fold
    after the other, instead of on one validation split. The work multiplies by this number."""
    selection: Selection = "auto"
    """How a training chooses its epoch, so that it never chooses on rows that are compared.
    `nested`: half of the validation rows are selection rows, which choose epochs, stop early and
    fit thresholds; only the other half is compared. With `folds`, the selection rows are a fifth of
    the training rows of each fold. `last_step`: every training runs to its last step (a head has
    `model.head.l2: 0.001`, unless you set it), all validation rows are compared, and decisions are
    cross-fitted. `auto`: `nested` if every class then has 20 rows on both sides, which a fitted
    threshold needs; otherwise, and if nothing is chosen, `last_step`."""
    thresholds: bool = True
    """Compare every strategy without and with fitted thresholds (`decision.thresholds: f1`), as
    `class_weights` and `class_weights + thresholds`. This needs no further training. Strategies
    whose section `decision` sets thresholds are compared once."""
    tune: CompareTuneSection | None = None
    """Settings that every strategy tries, such as `{learning_rate: [2e-5, 5e-5, 1e-4],
    num_train_epochs: [2, 4]}`. All combinations, and the setting of the config, train every
    strategy with every seed: the trainings multiply. Each strategy takes the setting whose mean
    `metric` on the selection rows is highest. No compared row is used for this choice.
    The page also compares all strategies with the setting of the config."""
    quick: bool = False
    """First compare all strategies on the frozen encoder (`model.mode: head`), which takes minutes.
    Then train only the best two of them, and `none`, as configured."""

    @model_validator(mode="after")
    def _check(self) -> "CompareSection":
        given = self.strategies or []
        own = [strategy.name for strategy in given if not isinstance(strategy, str)]
        names = [*own, *(strategy for strategy in given if isinstance(strategy, str))]
        twice = next((name for name in names if names.count(name) > 1), None)
        refuse(
            (twice, f"strategies holds '{twice}' twice; give each another name"),
            (
                BASELINE in own,
                f"strategies holds a mapping with the name '{BASELINE}', which is the baseline;"
                " give it another name",
            ),
            (
                self.budget == "seconds" and self.amount is None,
                "budget is 'seconds' without amount; set amount: the seconds that each training"
                " may take",
            ),
        )
        return self

    @property
    def overrides(self) -> dict[str, dict[str, Any]]:
        """{strategy: the sections that replace those of the config}, with the baseline first."""
        found: dict[str, dict[str, Any]] = {BASELINE: {}}
        for strategy in self.strategies or DEFAULT_STRATEGIES[False]:
            if isinstance(strategy, str):
                found[strategy] = PRESETS[strategy]
            else:
                sections = strategy.model_dump(exclude={"name"})
                found[strategy.name] = {k: v for k, v in sections.items() if v is not None}
        return found

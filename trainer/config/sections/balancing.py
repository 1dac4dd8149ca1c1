"""What is done about imbalance: rows, loss, decision and votes; new rows have `trainer/config/sections/augment.py`."""

from math import inf, isinf
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Field, model_validator

from trainer.config.sections.labels import LabelCosts, LabelWeights
from trainer.config.sections.training import Section

RowMethod = Literal["none", "undersample", "oversample", "floor", "power", "class_balanced_batches"]
"""How training rows are drawn; implemented by `METHODS` of `trainer/data/balancing/balance.py`."""
SynthesisMethod = Literal["adasyn", "borderline_smote", "smote"]
"""How synthetic embeddings are made; implemented by `trainer/training/frozen/synthesis.py`."""
SYNTHESIS_METHODS: tuple[str, ...] = get_args(SynthesisMethod)
Weighting = Literal["none", "balanced", "sqrt", "effective_number"]
"""Named class weights; implemented by `WEIGHTINGS` of `trainer/data/balancing/weights.py`."""
LossName = Literal["cross_entropy", "focal", "logit_adjusted", "balanced_softmax"]
"""Implemented by `LOSSES` of `trainer/training/losses.py`."""
LOSS_OPTIONS = {"focal": "gamma", "logit_adjusted": "tau"}
"""The losses that take a parameter, and its key."""


class Parameter(NamedTuple):
    """The one number that a method takes: its config key, default and range."""

    key: str
    default: float
    least: float
    most: float

    @property
    def allowed(self) -> str:
        """The range in words."""
        return f"{self.least:g} or more" if isinf(self.most) else f"{self.least:g} to {self.most:g}"

    def admits(self, value: float) -> bool:
        """Return whether the value lies in the range."""
        return self.least <= value <= self.most


PARAMETERS = {
    "undersample": Parameter("target_ratio", 1.0, 1.0, inf),
    "oversample": Parameter("target_ratio", 1.0, 0.0, 1.0),
    "floor": Parameter("min_share", 0.1, 0.0, 1.0),
    "power": Parameter("alpha", 0.5, 0.0, 1.0),
}
"""The methods that take a parameter."""


class BalanceSection(Section):
    """Which training rows are seen."""

    method: Literal[RowMethod, SynthesisMethod] = "none"
    """`none`; `undersample`; `oversample`; `floor` (each class at least `min_share` of the rows seen); `power` (shares ~ n^`alpha`);
    `class_balanced_batches` (every optimizer step holds every class equally, whatever `train_sampling_strategy` says);
    `smote`, `borderline_smote`, `adasyn` (`neighbours`; fill every class up with synthetic embeddings, `model.mode: head` only).

    Multi-label data: the counts of the labels are balanced. Rows are removed only while none of their labels falls below its target,
    and repeated until every label reaches it, so labels that share rows with rarer ones end higher. Rows without a label are cut
    like the labels and never repeated."""
    target_ratio: float | None = None
    """undersample: largest class at most so many times the smallest (1 or more, default 1); oversample: every class at least this part
    of the largest (up to 1, default 1)."""
    min_share: float | None = None
    """floor: least share of the resulting rows; 0.05 to 0.2 is the usual advice, default 0.1."""
    alpha: float | None = None
    """power: 1 natural, 0.5 square root (default), 0 balanced."""
    neighbours: int = Field(default=5, ge=1)
    """smote, borderline_smote, adasyn: nearest rows of its class that a synthetic embedding may lie towards; a class needs one row more."""
    by: str | None = None
    """Column of domains (source, language) to balance in place of the labels; metrics are then reported per domain too."""
    by_label: bool = False
    """With `by`: balance every pair of domain and label."""
    scope: Literal["train", "all"] = "train"
    """`train`: validation and test keep their natural distribution. `all`: the pool is undersampled before it is split, except test."""
    resample_each_epoch: bool = False
    """Draw anew every epoch, so that no row of the larger classes is wasted (scope train)."""

    @model_validator(mode="after")
    def _combination(self) -> "BalanceSection":
        if self.method == "none" and (self.scope == "all" or self.resample_each_epoch):
            raise ValueError(
                "method none draws nothing; scope: all and resample_each_epoch need another method, such as undersample"
            )
        if self.scope == "all" and (self.method != "undersample" or self.by):
            raise ValueError(
                "scope: all needs method: undersample, without by; copies of a row would stand in train and in validation"
            )
        if self.scope == "all" and self.resample_each_epoch:
            raise ValueError(
                "resample_each_epoch needs scope: train; with scope: all the rows left out are gone"
            )
        if self.by_label and not self.by:
            raise ValueError("by_label needs by: a column of domains")
        if self.method == "class_balanced_batches" and self.by:
            raise ValueError(
                "class_balanced_batches balances labels; with by: use floor, power, oversample or undersample"
            )
        if self.method in SYNTHESIS_METHODS and self.resample_each_epoch:
            raise ValueError(
                f"method {self.method} adds embeddings to all training rows, once; remove resample_each_epoch"
            )
        for key in ("target_ratio", "min_share", "alpha"):
            self._check_parameter(key, getattr(self, key))
        return self

    def _check_parameter(self, key: str, value: float | None) -> None:
        if value is None:
            return
        known = PARAMETERS.get(self.method)
        if known is None or known.key != key:
            takers = " or ".join(
                name for name, parameter in PARAMETERS.items() if parameter.key == key
            )
            raise ValueError(
                f"{key} is set, but method {self.method} does not use it; it belongs to {takers}"
            )
        if not known.admits(value):
            raise ValueError(f"{key} is {value:g}; method {self.method} needs {known.allowed}")

    @property
    def parameter(self) -> float | None:
        """The number that the method takes, None for its default."""
        return getattr(self, PARAMETERS[self.method].key) if self.method in PARAMETERS else None

    @property
    def row_method(self) -> str:
        """How rows are drawn: the method, or `none` where it makes embeddings instead."""
        return "none" if self.method in SYNTHESIS_METHODS else self.method


class LossSection(Section):
    """How much mistakes count."""

    name: LossName = "cross_entropy"
    """`cross_entropy`; `focal` (`gamma`); `logit_adjusted` (`tau`); `balanced_softmax` is logit_adjusted with tau 1."""
    gamma: Annotated[float, Field(ge=0)] | None = None
    """focal: how fast rows that are right already fade; 0 is cross-entropy, default 2."""
    tau: Annotated[float, Field(ge=0)] | None = None
    """logit_adjusted: strength of the margin for rare classes; 0 is cross-entropy, default 1."""
    class_weights: Weighting | LabelWeights = "none"
    """`none`, `balanced` (N / (K n_c)), `sqrt` (its square root), `effective_number` (`beta`), or {label: weight} (others 1).

    Multi-label data: the weight of a label's rows against the rows without it, not rescaled; `balanced` is (N - n_c) / n_c."""
    beta: Annotated[float, Field(gt=0, lt=1)] | None = None
    """effective_number: 0.9 to 0.9999, the larger the nearer to `balanced`; default 0.999."""
    weights_mean: Literal["rows", "classes"] = "rows"
    """Class weights have mean 1 over the rows drawn (the loss keeps its scale and the learning rate its meaning), or over the classes
    (as in Cui et al. 2019; every gradient is then smaller where rare classes weigh more)."""

    @model_validator(mode="after")
    def _used(self) -> "LossSection":
        for key in ("gamma", "tau"):
            if getattr(self, key) is not None and LOSS_OPTIONS.get(self.name) != key:
                taker = next(name for name, option in LOSS_OPTIONS.items() if option == key)
                raise ValueError(
                    f"{key} is set, but name {self.name} does not use it; it belongs to {taker}"
                )
        if self.beta is not None and self.class_weights != "effective_number":
            raise ValueError("beta is set, but only class_weights: effective_number uses it")
        return self


class DecisionSection(Section):
    """What is made of the model's scores after training; fitted on validation rows only."""

    prior: Literal["natural", "uniform"] | LabelWeights | None = None
    """Correct the false prior that balancing teaches: `natural` (shares of the cleaned training rows before balancing), `uniform`,
    or {label: share} of the rows to come."""
    temperature: bool = False
    """Fit one temperature T, so that probabilities are neither too sure nor too timid. Without `prior` it is that of Guo et al.: T
    minimises the cross-entropy of softmax(logits / T) on validation, whatever the loss; logits that are calibrated give 1. With
    `prior` the classes' shares are corrected first, so that T does not absorb them. After balancing, set `prior` as well: one
    number cannot undo the shares that balancing teaches. Under `balance.scope: all` validation rows are weighted to natural shares."""
    thresholds: Literal["f1", "recall_at_precision", "cost"] | None = None
    """Label = argmax p / threshold, fitted for rows with `prior` where that is set, else for rows like validation. `f1`: macro F1 (two
    classes: F1 of the rarer one); `recall_at_precision`: most recall at `min_precision`; `cost`: least expected cost by `costs`, nothing
    is fitted."""
    min_precision: Annotated[float, Field(gt=0, le=1)] | None = None
    """recall_at_precision: precision that each class (of two: the rarer one) reaches on validation; default 0.9."""
    costs: LabelCosts | None = None
    """cost: {true label: {predicted label: cost}}; what is left out costs 1, a right answer 0."""

    @model_validator(mode="after")
    def _used(self) -> "DecisionSection":
        if self.min_precision is not None and self.thresholds != "recall_at_precision":
            raise ValueError(
                "min_precision is set, but only thresholds: recall_at_precision uses it"
            )
        if (self.costs is not None) != (self.thresholds == "cost"):
            raise ValueError(
                "thresholds: cost and costs: {true label: {predicted label: cost}} need each other"
            )
        return self

    @property
    def is_set(self) -> bool:
        """Whether anything is done after training."""
        return self.prior is not None or self.temperature or self.thresholds is not None


class EnsembleSection(Section):
    """Several models that vote: other seeds on one split, or k-fold cross-validation."""

    size: int = Field(default=1, ge=1, le=50)
    """Number of members; 1 is a single model."""
    kind: Literal["seeds", "folds"] = "seeds"
    """`seeds`: one split, each member with another head, order and draw of rows; `folds`: each member validates on another of
    `size` stratified folds (groups kept whole) of all rows that are not test."""
    combine: Literal["mean", "majority"] = "mean"
    """`mean`: mean probability; `majority`: most votes, on a tie the larger mean probability."""
    member: int | None = Field(default=None, ge=1)
    """Train this member alone; what the ensemble does for each, and what one cluster job may do."""

    @model_validator(mode="after")
    def _counted(self) -> "EnsembleSection":
        if self.member is not None and self.member > self.size:
            raise ValueError(f"member is {self.member}, but size is {self.size}")
        if self.kind == "folds" and self.size == 1:
            raise ValueError("kind: folds needs size 2 or more")
        return self

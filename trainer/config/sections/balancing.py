"""The sections that treat imbalance: `balance:`, `loss:`, `decision:` and `ensemble:`."""

from math import inf, isinf
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Field, model_validator

from trainer.config.sections.labels import LabelCosts, LabelWeights
from trainer.config.sections.section import Section, refuse

RowMethod = Literal["none", "undersample", "oversample", "floor", "power", "class_balanced_batches"]
"""How training rows are drawn; implemented by `METHODS` of `trainer/data/balancing/balance.py`."""
SynthesisMethod = Literal["adasyn", "borderline_smote", "smote"]
"""How embeddings are made; `SYNTHESISERS` of `trainer/training/frozen/synthesis.py`."""
SYNTHESIS_METHODS: tuple[str, ...] = get_args(SynthesisMethod)
Weighting = Literal["none", "balanced", "sqrt", "effective_number"]
"""Named class weights; implemented by `WEIGHTINGS` of `trainer/data/balancing/weights.py`."""
LossName = Literal["cross_entropy", "focal", "logit_adjusted", "balanced_softmax"]
"""Losses of one label a row; implemented by `LOSSES` of `trainer/training/losses/one_label.py`."""
MultiLabelLossName = Literal[
    "cross_entropy", "focal", "ntr_focal", "cb_ntr", "distribution_balanced", "asymmetric"
]
"""Implemented by `MULTI_LABEL_LOSSES` of `trainer/training/losses/several_labels.py`."""
NEGATIVE_TOLERANT = ("ntr_focal", "cb_ntr", "distribution_balanced")
LOSS_SETTINGS = {
    "gamma": ("focal", "asymmetric", *NEGATIVE_TOLERANT),
    "tau": ("logit_adjusted",),
    "gamma_positive": ("asymmetric",),
    "margin": ("asymmetric",),
    "prior_bias": NEGATIVE_TOLERANT,
    "negative_scale": NEGATIVE_TOLERANT,
}
"""The numbers that losses take: {key: losses that use it}."""


class Parameter(NamedTuple):
    """The number that a method takes: its config key, default and range."""

    key: str
    default: float
    least: float
    most: float


PARAMETERS = {
    "undersample": Parameter("target_ratio", 1.0, 1.0, inf),
    "oversample": Parameter("target_ratio", 1.0, 0.0, 1.0),
    "floor": Parameter("min_share", 0.1, 0.0, 1.0),
    "power": Parameter("alpha", 0.5, 0.0, 1.0),
}
"""The methods that take a parameter."""


class BalanceSection(Section):
    """Which training rows the model sees, and how often."""

    method: Literal[RowMethod, SynthesisMethod] = "none"
    """`none`: every row once. `undersample`: fewer rows of large classes. `oversample`: rows of
    small classes are repeated. `floor`: each class makes up at least `min_share` of the rows.
    `power`: class shares are proportional to n^`alpha`, where n is the size of a class.
    `class_balanced_batches`: every optimizer step contains each class equally often, whatever
    `training.train_sampling_strategy` is. `smote`, `borderline_smote`, `adasyn`: each class is
    filled up with synthetic embeddings (`neighbours`); they need `model.mode: head`.

    With multi-label data, the counts of the labels are balanced. A row is removed only if none of
    its labels falls below its target, and rows are repeated until every label reaches its target.
    Labels that share rows with rarer labels therefore remain more frequent. Rows without a label
    are reduced like the labels and never repeated. `class_balanced_batches` draws the labels
    equally often in every optimizer step, each time with a row that has the label. A step with
    fewer rows than labels draws a label at most once. Rows without a label are drawn as often as
    one label."""
    target_ratio: float | None = None
    """`undersample`: maximum size of the largest class as a multiple of the smallest (1 or more,
    default 1). `oversample`: minimum size of every class as a fraction of the largest (up to 1,
    default 1)."""
    min_share: float | None = None
    """`floor`: minimum share of each class in the resulting rows. Default 0.1; usual values are
    0.05 to 0.2."""
    alpha: float | None = None
    """`power`: exponent of the class sizes. 1 keeps the natural shares, 0 makes all classes equal.
    Default 0.5, the square root."""
    neighbours: int = Field(default=5, ge=1)
    """`smote`, `borderline_smote`, `adasyn`: number of nearest rows of the same class towards which
    a synthetic embedding is placed. A class needs one row more than this."""
    by: str | None = None
    """Column of domains, such as the source or the language, to balance instead of the labels.
    Metrics are then also reported for each domain."""
    by_label: bool = False
    """With `by`: balance every pair of domain and label."""
    scope: Literal["train", "all"] = "train"
    """`train`: validation and test keep their natural distribution. `all`: all rows except those of
    test are undersampled before they are split."""
    resample_each_epoch: bool = False
    """Draw the rows again in every epoch, so that training uses more rows of the larger classes.
    It needs `scope: train`."""

    @model_validator(mode="after")
    def _check(self) -> "BalanceSection":
        refuse(
            (
                self.method == "none" and (self.scope == "all" or self.resample_each_epoch),
                "method none draws no rows; scope: all and resample_each_epoch need another method,"
                " such as undersample",
            ),
            (
                self.scope == "all" and (self.method != "undersample" or self.by),
                "scope: all needs method: undersample, without by; otherwise copies of a row could"
                " be in both train and validation",
            ),
            (
                self.scope == "all" and self.resample_each_epoch,
                "resample_each_epoch needs scope: train; scope: all removes the other rows"
                " before the split",
            ),
            (self.by_label and not self.by, "by_label needs by: a column of domains"),
            (
                self.method == "class_balanced_batches" and self.by,
                "class_balanced_batches balances labels; with by: use floor, power, oversample or"
                " undersample",
            ),
            (
                self.method in SYNTHESIS_METHODS and self.resample_each_epoch,
                f"method {self.method} adds embeddings to all training rows, once; remove"
                " resample_each_epoch",
            ),
        )
        for key in ("target_ratio", "min_share", "alpha"):
            if getattr(self, key) is not None:
                self._check_parameter(key, getattr(self, key))
        return self

    def _check_parameter(self, key: str, value: float) -> None:
        known = PARAMETERS.get(self.method)
        if known is None or known.key != key:
            users = [name for name, parameter in PARAMETERS.items() if parameter.key == key]
            raise ValueError(
                f"{key} is set, but method {self.method} does not use it; it belongs to"
                f" {' or '.join(users)}"
            )
        if not known.least <= value <= known.most:
            most = "or more" if isinf(known.most) else f"to {known.most:g}"
            raise ValueError(
                f"{key} is {value:g}; method {self.method} needs {known.least:g} {most}"
            )

    @property
    def parameter(self) -> float | None:
        """The number that the method takes; None for its default."""
        return getattr(self, PARAMETERS[self.method].key) if self.method in PARAMETERS else None

    @property
    def row_method(self) -> str:
        """How rows are drawn; `none` for methods that make embeddings instead."""
        return "none" if self.method in SYNTHESIS_METHODS else self.method


class LossSection(Section):
    """The loss function, and how much each class counts in it."""

    name: Literal[LossName, MultiLabelLossName] = "cross_entropy"
    """`cross_entropy`; `focal` (`gamma`); `logit_adjusted` (`tau`); or `balanced_softmax`, which is
    `logit_adjusted` with tau 1.

    With multi-label data: `cross_entropy`, which is then binary for each label; `focal` (Lin et
    al. 2017); `ntr_focal`, focal with negative-tolerant regularisation; `cb_ntr`, the same with
    `class_weights: effective_number`; `distribution_balanced`, the same with weights that undo the
    effect of labels that occur together (Wu et al. 2020; Huang et al. 2021); `asymmetric` (Ridnik
    et al. 2021)."""
    gamma: Annotated[float, Field(ge=0)] | None = None
    """How much less a row counts that is already classified well. 0 switches this off. Default 2;
    for `asymmetric`, 4, and only for rows without the label."""
    gamma_positive: Annotated[float, Field(ge=0)] | None = None
    """`asymmetric`: the same for rows with the label. Default 0."""
    margin: Annotated[float, Field(ge=0, lt=1)] | None = None
    """`asymmetric`: rows without the label count nothing below this probability. Default 0.05."""
    prior_bias: Annotated[float, Field(ge=0)] | None = None
    """`ntr_focal`, `cb_ntr`, `distribution_balanced`: the share of each label's log odds that is
    added to its logits in training. Default 0.05."""
    negative_scale: Annotated[float, Field(gt=0)] | None = None
    """`ntr_focal`, `cb_ntr`, `distribution_balanced`: factor of the logits of rows without the
    label; their loss is divided by it. Default 2."""
    tau: Annotated[float, Field(ge=0)] | None = None
    """`logit_adjusted`: strength of the margin for rare classes. 0 is cross-entropy; default 1."""
    class_weights: Weighting | LabelWeights = "none"
    """`none`; `balanced`, which is N / (K n_c) for N rows, K classes and n_c rows of the class;
    `sqrt`, the square root of it; `effective_number` (`beta`); or a mapping {label: weight}, in
    which missing labels have weight 1.

    With multi-label data, this is the weight of the rows with a label relative to the rows without
    it. It is not rescaled, and `balanced` is (N - n_c) / n_c. `effective_number` is then
    1 / (1 - beta^n_c) for the rows with and without the label, and `sqrt` is unknown."""
    beta: Annotated[float, Field(gt=0, lt=1)] | None = None
    """`effective_number`: usually 0.9 to 0.9999. The larger it is, the closer are the weights to
    `balanced`. Default 0.999; with multi-label data 0.9."""
    weights_mean: Literal["rows", "classes"] = "rows"
    """`rows`: the class weights have mean 1 over the rows that are drawn. The loss then keeps its
    scale, and the learning rate its meaning. `classes`: they have mean 1 over the classes, as in
    Cui et al. (2019). Gradients are then smaller if rare classes have larger weights."""

    defer_weights: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the training after which the class weights apply; until then every class has weight
    1. The model first learns from the natural distribution (Cao et al. 2019,
    https://arxiv.org/abs/1906.07413; 0.8 there). Set `training.early_stopping_patience: null`,
    so that training does not stop before. It needs `class_weights`."""

    @model_validator(mode="after")
    def _check(self) -> "LossSection":
        unused = [
            (
                getattr(self, key) is not None and self.name not in names,
                f"{key} is set, but name {self.name} does not use it; it belongs to"
                f" {' or '.join(names)}",
            )
            for key, names in LOSS_SETTINGS.items()
        ]
        refuse(
            *unused,
            (
                self.beta is not None and self.weighting != "effective_number",
                "beta is set, but only class_weights: effective_number uses it",
            ),
            (
                self.defer_weights is not None and self.weighting == "none",
                "defer_weights is set, but class_weights is none; set class_weights: balanced, or"
                " remove it",
            ),
            (
                self.name == "cb_ntr" and self.class_weights not in ("none", "effective_number"),
                "name cb_ntr has class_weights: effective_number; for others use ntr_focal",
            ),
        )
        return self

    @property
    def settings(self) -> dict[str, float]:
        """The numbers of the loss that are set."""
        values = {key: getattr(self, key) for key in LOSS_SETTINGS}
        return {key: value for key, value in values.items() if value is not None}

    @property
    def weighting(self) -> Weighting | LabelWeights:
        """The class weights, with those that the loss itself brings."""
        return "effective_number" if self.name == "cb_ntr" else self.class_weights


class DecisionSection(Section):
    """How scores become predictions after training. Everything is fitted on validation data."""

    prior: Literal["natural", "uniform"] | LabelWeights | None = None
    """Correct the class shares that balanced training rows teach the model. `natural`: use the
    shares of the cleaned training rows before balancing. `uniform`: use equal shares. Or give a
    mapping {label: share} with the shares that you expect in new data. With multi-label data only
    `natural` with `loss.name: cross_entropy` is known; it corrects the log odds of each label."""
    temperature: bool = False
    """Fit a temperature T, so that probabilities are neither overconfident nor underconfident.
    Without `prior`, T minimises the cross-entropy of softmax(logits / T) on validation, whatever
    the loss (Guo et al. 2017); T is 1 if the logits are calibrated. With `prior`, the class shares
    are corrected first, so that T does not absorb them. Set `prior` too if the rows are balanced:
    one number cannot undo the class shares that balancing teaches. With `balance.scope: all`,
    validation rows are weighted to natural shares. Multi-label data: one T for all labels, which
    minimises the binary cross-entropy of sigmoid(logits / T)."""
    thresholds: Literal["f1", "micro_f1", "recall_at_precision", "common", "cost"] | None = None
    """Predict the label with the largest p / threshold. The thresholds are fitted for the shares in
    `prior` if it is set, otherwise for those of validation. `f1`: the highest macro F1 (with two
    classes: F1 of the rarer one). `recall_at_precision`: the highest recall at `min_precision`.
    `cost`: the lowest expected cost according to `costs`; nothing is fitted.

    With multi-label data, a text gets every label with p >= threshold; without `thresholds` that is
    0.5. Each label then has its own threshold: for its F1 (`f1`), for micro F1 of all labels
    (`micro_f1`), or for its recall at `min_precision`. `common` is one threshold for all labels,
    with the highest micro F1. Labels with fewer than 20 validation rows, or that do not reach
    `min_precision`, keep the common threshold (of `recall_at_precision`: the highest recall of all
    labels together)."""
    min_precision: Annotated[float, Field(gt=0, le=1)] | None = None
    """`recall_at_precision`: precision that each class (with two classes: the rarer one) must reach
    on validation. Default 0.9."""
    costs: LabelCosts | None = None
    """`cost`: a mapping {true label: {predicted label: cost}}. A missing pair costs 1, and a
    correct prediction 0. With multi-label data: {label: {missed: cost, wrong: cost}} for a label
    that is not given though true, or given though not; 1 if omitted."""
    at_least_one: bool = False
    """Multi-label data: a text without a label gets the one with the largest margin, which is the
    log odds of its probability less those of its threshold."""
    at_most: Annotated[int, Field(ge=1)] | None = None
    """Multi-label data: a text keeps at most so many labels, those with the largest margins."""

    @model_validator(mode="after")
    def _check(self) -> "DecisionSection":
        refuse(
            (
                self.min_precision is not None and self.thresholds != "recall_at_precision",
                "min_precision is set, but only thresholds: recall_at_precision uses it",
            ),
            (
                (self.costs is not None) != (self.thresholds == "cost"),
                "thresholds: cost and costs: {true label: {predicted label: cost}} need each other",
            ),
        )
        return self

    @property
    def is_set(self) -> bool:
        """Whether anything is done with the scores after training."""
        return self != DecisionSection()

    @property
    def is_fitted(self) -> bool:
        """Whether a temperature or thresholds are fitted on validation rows."""
        return self.temperature or self.thresholds not in (None, "cost")


class EnsembleSection(Section):
    """Several models that vote: different seeds on one split, or k-fold cross-validation."""

    size: int = Field(default=1, ge=1, le=50)
    """Number of members; 1 is a single model."""
    kind: Literal["seeds", "folds"] = "seeds"
    """`seeds`: all members use the same split, but another initial head, order and draw of rows.
    `folds`: all rows that are not test are divided into `size` stratified folds, which keep groups
    together; each member validates on another fold."""
    combine: Literal["mean", "majority"] = "mean"
    """`mean`: the class with the highest mean probability. `majority`: the class with the most
    votes; the mean probability decides ties. Multi-label data: `mean` gives a label whose mean
    probability reaches the mean of the members' thresholds; `majority` gives a label that more than
    half of the members give, and in a tie what `mean` gives."""
    member: int | None = Field(default=None, ge=1)
    """Train only this member, counted from 1. A cluster job can train one member in this way; the
    ensemble sets it for each of its members."""

    @model_validator(mode="after")
    def _check(self) -> "EnsembleSection":
        refuse(
            (
                self.member is not None and self.member > self.size,
                f"member is {self.member}, but size is {self.size}",
            ),
            (self.kind == "folds" and self.size == 1, "kind: folds needs size 2 or more"),
        )
        return self

"""The YAML as typed models: load, override, check, back to text, JSON Schema for editors.

Value checks touch no file, network, torch or clock; `trainer/yaml_source.py` reads the YAML and words the faults.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from trainer.augment_section import AugmentSection
from trainer.data.balance import METHODS, PARAMETERS
from trainer.data.weights import WEIGHTINGS
from trainer.errors import ConfigError, listing
from trainer.label_values import LabelList, LabelWeights
from trainer.model_section import ModelSection, check_mode
from trainer.training.synthesis import SYNTHESISERS
from trainer.training_section import METRICS, MULTI_LABEL_METRICS, OWNED_KEYS, Section, TrainingSection
from trainer.yaml_source import YamlSource, dump_yaml, read_overrides, read_yaml, word_faults

LOSS_OPTIONS: dict[str, str | None] = {"cross_entropy": None, "focal": "gamma", "logit_adjusted": "tau", "balanced_softmax": None}
"""The losses of trainer/training/losses.py, which imports torch, and the one key that each takes."""


class RunSection(Section):
    """Where the run goes and what makes it repeatable."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run folder inside `output_dir`: letters, digits, dot, dash, underscore."""
    output_dir: str = "runs"
    """Folder that holds the run folders."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """One seed for the split, the balancing, the new head, dropout and the order of rows."""
    overwrite: bool = False
    """Replace a run that already lies in the folder; an unfinished run of the same config is still resumed."""
    num_threads: int | None = Field(default=None, ge=1)
    """CPU threads per process; left out: this machine's cores shared among its processes."""
    num_processes: int | None = Field(default=None, ge=1)
    """Processes that must take part; a run with another number stops at once. Cluster scripts set it."""


class CleanSection(Section):
    """The cleaning rules; each can be switched off."""

    strip: bool = True
    """Cut white space around texts and labels."""
    empty: bool = True
    """Drop rows whose text is empty or a spelt-out missing value (nan, NaN, None, null, NULL)."""
    duplicates: bool = True
    """Keep a text that occurs several times with one label once."""
    conflicts: bool = True
    """Settle a text with several labels by majority vote; on a tie `data.weight_column` decides, else all are dropped."""
    leakage: bool = True
    """With given files: drop training rows whose text is also in validation or test (and validation rows also in test)."""


Location = str | list[str]


class DataSection(Section):
    """Where the rows come from and what their columns are called."""

    source: Location | None = None
    """One pool of rows to split: file, glob, list of them, saved `datasets` folder, Hub id, or `package:<distribution>/<path>`."""
    train: Location | None = None
    """Given training rows, instead of `source`."""
    validation: Location | None = None
    """Given validation rows; left out: cut from `train` by `split`."""
    test: Location | None = None
    """Given test rows."""
    text_column: str | Annotated[list[str], Field(min_length=1)] = "text"
    """Column of the text. A list of two is a text pair, e.g. [prompt, completion]; of a longer list the rest is joined by line breaks."""
    label_column: str = "label"
    """Column of the label: text, whole numbers or ClassLabel. A column of lists makes the data multi-label; an empty list is a row without a label."""
    label_columns: Annotated[list[str], Field(min_length=2)] | None = None
    """Multi-label data with one column a label, of 0 and 1 or true and false, instead of `label_column`."""
    group_column: str | None = None
    """Rows of one group (author, document) never stand in two splits."""
    weight_column: str | None = None
    """Confidence of each row; only breaks ties between conflicting labels."""
    drop_labels: LabelList = Field(default_factory=list)
    """Labels whose rows are left out; of multi-label data every row that has one of them."""
    limit: int | None = Field(default=None, ge=2)
    """Stratified, seeded sample of so many rows of `source` or `train`, for trials."""
    encoding: str = "utf-8"
    """Text encoding of CSV, TSV and JSON files."""
    separator: Annotated[str, Field(pattern=r"^[\x00-\x7f]$")] | None = None
    """Separator of CSV files, one ASCII character; left out: comma, or tab for .tsv and .tab."""
    quote_char: Annotated[str, Field(pattern=r"^[\x00-\x7f]?$")] = '"'
    """Quote character of CSV files, ASCII; empty: none, quotes are part of the text."""
    column_names: list[str] | None = None
    """Column names of CSV files without a header line."""
    skip_lines: int = Field(default=0, ge=0)
    """Lines above the header of CSV files."""
    skip_lines_after_header: int = Field(default=0, ge=0)
    """Lines below the header that hold no rows (Orange files have 2)."""
    on_bad_rows: Literal["error", "skip"] = "error"
    """What to do with rows that cannot be read: stop, or leave them out and list them in dropped.jsonl."""
    subset: str | None = None
    """Configuration name of a Hub data set."""
    revision: str | None = None
    """Branch, tag or commit of a Hub data set."""
    split_names: dict[Literal["source", "train", "validation", "test"], str] = Field(default_factory=dict)
    """Split of a Hub or saved data set to read for each of the keys above; left out: their own name, `train` for source."""
    clean: CleanSection = CleanSection()
    """Cleaning rules."""

    @model_validator(mode="after")
    def _one_way_in(self) -> "DataSection":
        if (self.source is None) == (self.train is None):
            raise ValueError("needs either source: (one file, split here) or train: (given files), not both or neither")
        if self.source is not None and (self.validation is not None or self.test is not None):
            raise ValueError("has source: together with validation: or test:; given files start with train:")
        texts = [self.text_column] if isinstance(self.text_column, str) else self.text_column
        if self.label_columns and self.label_column != "label":
            raise ValueError("has both label_column and label_columns; needed: one of them")
        if len(set(self.label_columns or [])) < len(self.label_columns or []):
            raise ValueError("label_columns names a column twice")
        both = [column for column in self.label_columns or [self.label_column] if column in texts]
        if both:
            raise ValueError(f"label_column{'s' if self.label_columns else ''} and text_column are both '{both[0]}'; the label would be its own text")
        return self


class SplitSection(Section):
    """Shares of the rows; they add up to 1."""

    train: float = Field(default=0.8, gt=0, lt=1)
    """Share trained on."""
    validation: float = Field(default=0.2, gt=0, lt=1)
    """Share that selects the best epoch."""
    test: float | None = Field(default=None, gt=0, lt=1)
    """Share never seen before the final evaluation; left out: no test split."""
    primary_label: bool = False
    """Multi-label data: stratify by the label that each row names first, instead of by all labels (iterative stratification)."""

    @model_validator(mode="after")
    def _whole(self) -> "SplitSection":
        total = self.train + self.validation + (self.test or 0)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"shares add up to {total:.6g}; they must add up to 1")
        return self


class BalanceSection(Section):
    """Which training rows are seen."""

    method: Literal[(*METHODS, *SYNTHESISERS)] = "none"  # type: ignore[valid-type]
    """`none`; `undersample`; `oversample`; `floor` (each class at least `min_share` of the rows seen); `power` (shares ~ n^`alpha`);
    `class_balanced_batches` (every optimizer step holds every class equally, whatever `train_sampling_strategy` says);
    `smote`, `borderline_smote`, `adasyn` (`neighbours`; fill every class up with synthetic embeddings, `model.mode: head` only)."""
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
            raise ValueError("method none draws nothing; scope: all and resample_each_epoch need another method, such as undersample")
        if self.scope == "all" and (self.method != "undersample" or self.by):
            raise ValueError("scope: all needs method: undersample, without by; copies of a row would stand in train and in validation")
        if self.scope == "all" and self.resample_each_epoch:
            raise ValueError("resample_each_epoch needs scope: train; with scope: all the rows left out are gone")
        if self.by_label and not self.by:
            raise ValueError("by_label needs by: a column of domains")
        if self.method == "class_balanced_batches" and self.by:
            raise ValueError("class_balanced_batches balances labels; with by: use floor, power, oversample or undersample")
        if self.method in SYNTHESISERS and self.resample_each_epoch:
            raise ValueError(f"method {self.method} adds embeddings to all training rows, once; remove resample_each_epoch")
        for key in ("target_ratio", "min_share", "alpha"):
            self._check_parameter(key, getattr(self, key))
        return self

    def _check_parameter(self, key: str, value: float | None) -> None:
        if value is None:
            return
        known = PARAMETERS.get(self.method)
        if known is None or known.key != key:
            takers = " or ".join(name for name, parameter in PARAMETERS.items() if parameter.key == key)
            raise ValueError(f"{key} is set, but method {self.method} does not use it; it belongs to {takers}")
        if not known.admits(value):
            raise ValueError(f"{key} is {value:g}; method {self.method} needs {known.allowed}")

    @property
    def parameter(self) -> float | None:
        """The number that the method takes, None for its default."""
        return getattr(self, PARAMETERS[self.method].key) if self.method in PARAMETERS else None

    @property
    def row_method(self) -> str:
        """How rows are drawn: the method, or `none` where it makes embeddings instead."""
        return "none" if self.method in SYNTHESISERS else self.method


class LossSection(Section):
    """How much mistakes count."""

    name: Literal[tuple(LOSS_OPTIONS)] = "cross_entropy"  # type: ignore[valid-type]
    """`cross_entropy`; `focal` (`gamma`); `logit_adjusted` (`tau`); `balanced_softmax` is logit_adjusted with tau 1."""
    gamma: Annotated[float, Field(ge=0)] | None = None
    """focal: how fast rows that are right already fade; 0 is cross-entropy, default 2."""
    tau: Annotated[float, Field(ge=0)] | None = None
    """logit_adjusted: strength of the margin for rare classes; 0 is cross-entropy, default 1."""
    class_weights: Literal[tuple(WEIGHTINGS)] | LabelWeights = "none"  # type: ignore[valid-type]
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
            if getattr(self, key) is not None and LOSS_OPTIONS[self.name] != key:
                taker = next(name for name, option in LOSS_OPTIONS.items() if option == key)
                raise ValueError(f"{key} is set, but name {self.name} does not use it; it belongs to {taker}")
        if self.beta is not None and self.class_weights != "effective_number":
            raise ValueError("beta is set, but only class_weights: effective_number uses it")
        return self


class DecisionSection(Section):
    """What is made of the model's scores after training; fitted on validation rows only."""

    prior: Literal["natural", "uniform"] | LabelWeights | None = None
    """Correct the false prior that balancing teaches: `natural` (shares of the cleaned training rows before balancing), `uniform`,
    or {label: share} of the rows to come."""
    temperature: bool = False
    """Fit one temperature, so that probabilities are neither too sure nor too timid."""
    thresholds: Literal["f1", "recall_at_precision", "cost"] | None = None
    """Label = argmax p / threshold. `f1`: macro F1 (two classes: F1 of the rarer one); `recall_at_precision`: most recall at
    `min_precision`; `cost`: least expected cost by `costs`, nothing is fitted."""
    min_precision: Annotated[float, Field(gt=0, le=1)] | None = None
    """recall_at_precision: precision that each class reaches on validation; default 0.9."""
    costs: dict[str, dict[str, Annotated[float, Field(ge=0)]]] | None = None
    """cost: {true label: {predicted label: cost}}; what is left out costs 1, a right answer 0."""

    @model_validator(mode="after")
    def _used(self) -> "DecisionSection":
        if self.min_precision is not None and self.thresholds != "recall_at_precision":
            raise ValueError("min_precision is set, but only thresholds: recall_at_precision uses it")
        if (self.costs is not None) != (self.thresholds == "cost"):
            raise ValueError("thresholds: cost and costs: {true label: {predicted label: cost}} need each other")
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


class HubSection(Section):
    """Pushing the model to the Hugging Face Hub after training."""

    push: bool = False
    """Upload model, card and pictures when the run is finished. The token comes from HF_TOKEN or the login."""
    repo_id: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    """`user/name` on the Hub."""
    private: bool = True
    """Create the repository as private."""
    revision: str | None = None
    """Branch to push to; left out: main."""
    commit_message: str = "Upload classifier trained with equipoise"
    """Message of the commit."""

    @model_validator(mode="after")
    def _named(self) -> "HubSection":
        if self.push and self.repo_id is None:
            raise ValueError("push needs repo_id: user/name")
        return self


class Config(Section):
    """A whole run."""

    run: RunSection = RunSection()
    """Where the run goes and what makes it repeatable."""
    model: ModelSection
    """The pretrained model that is fine-tuned."""
    data: DataSection
    """Where the rows come from and what their columns are called."""
    split: SplitSection | None = None
    """Shares of the rows; left out: 80 % train, 20 % validation of what is not given as files."""
    augment: AugmentSection = AugmentSection()
    """New training rows for classes with very few."""
    balance: BalanceSection = BalanceSection()
    """Which training rows are seen."""
    loss: LossSection = LossSection()
    """How much mistakes count."""
    decision: DecisionSection = DecisionSection()
    """What is made of the model's scores after training."""
    ensemble: EnsembleSection = EnsembleSection()
    """Several models that vote."""
    training: TrainingSection = Field(default_factory=lambda: TrainingSection.model_validate({}))  # type: ignore[valid-type]
    """transformers' TrainingArguments under their own names, and early_stopping_patience / early_stopping_threshold."""
    hub: HubSection = HubSection()
    """Pushing the model to the Hugging Face Hub after training."""

    owned_keys: ClassVar[dict[str, dict[str, str]]] = {"training": OWNED_KEYS}

    @model_validator(mode="after")
    def _sections_agree(self) -> "Config":
        if self.balance.scope == "all" and self.data.source is None:
            raise ValueError("balance.scope is 'all' with given files; it needs data.source, one pool to balance and split")
        if self.augment.generator != "none" and self.balance.scope == "all":
            raise ValueError("augment.generator is set with balance.scope: all; synthetic rows join the training rows alone. Set balance.scope: train")
        if self.augment.generator != "none" and self.balance.by:
            raise ValueError("augment.generator is set with balance.by; synthetic rows have no domain. Set generator: none, or remove balance.by")
        if self.augment.generator != "none" and not isinstance(self.data.text_column, str) and len(self.data.text_column) > 1:
            raise ValueError("augment.generator is set with a text pair in data.text_column; only single texts can be written. Set generator: none")
        if self.split and self.data.validation is not None:
            raise ValueError("split is set although data.validation is given; remove split, or give train: alone")
        if self.split and self.split.test and self.data.test is not None:
            raise ValueError("split.test is set although data.test is given; remove one of them")
        if self.loss.name == "focal" and self.training_values.get("label_smoothing_factor"):
            raise ValueError("training.label_smoothing_factor has no meaning for loss.name: focal; remove it, or use cross_entropy or logit_adjusted")
        check_mode(self.model.mode, self.balance.method, self.balance.resample_each_epoch)
        return self

    @model_validator(mode="after")
    def _ensemble_fits(self) -> "Config":
        if self.ensemble.size > 1 and self.hub.push:
            raise ValueError("hub.push with ensemble.size above 1: a repository holds one model; push a member's model folder, or set ensemble.size: 1")
        if self.ensemble.size > 1 and self.ensemble.combine == "mean" and self.decision.thresholds:
            raise ValueError("ensemble.combine: mean with decision.thresholds: members decide by their own thresholds; set ensemble.combine: majority")
        if self.ensemble.kind == "folds" and (self.data.validation is not None or self.balance.scope == "all"):
            raise ValueError("ensemble.kind: folds cuts validation itself; remove data.validation, and balance.scope: all")
        return self

    @property
    def member_seed(self) -> int:
        """Seed of the head, the order and the draw of rows; the split has run.seed for every member."""
        return self.run.seed + (self.ensemble.member or 1) - 1

    @model_validator(mode="after")
    def _prior_is_known(self) -> "Config":
        if self.decision.prior is not None:
            if self.loss.name == "focal" and self.loss.gamma != 0:
                raise ValueError("decision.prior has no known correction for loss.name: focal with gamma above 0; its scores are no log probabilities")
            if self.training_values.get("label_smoothing_factor"):
                raise ValueError("decision.prior has no known correction for training.label_smoothing_factor; remove one of them")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values: every section in full, of `training` what is set or has a default of ours."""
        plain = self.model_dump(exclude={"training"})
        plain["training"] = self.training_values
        return plain

    @property
    def training_values(self) -> dict[str, Any]:
        """The `training` keys that are set or have a default of ours."""
        return self.training.model_dump(exclude_unset=True)  # type: ignore[attr-defined]

    def check_problem_type(self, *, multi_label: bool) -> None:
        """Raises ConfigError for what data with one label a row, or with any number of them, cannot have; known once rows are read."""
        kind, metrics = ("multi-label data", MULTI_LABEL_METRICS) if multi_label else ("one label a row", METRICS)
        metric, faults = self.training_values["metric_for_best_model"], []
        if metric not in metrics:
            faults.append(f"training.metric_for_best_model is '{metric}'; with {kind} known: {listing(metrics)}.")
        if multi_label and self.training_values.get("label_smoothing_factor"):
            faults.append("training.label_smoothing_factor is set, which multi-label data cannot have. Remove it.")
        if multi_label and self.loss.name != "cross_entropy":
            faults.append(f"loss.name is '{self.loss.name}'; with multi-label data known: cross_entropy, which is then binary for each label.")
        if multi_label and self.loss.weights_mean != "rows":
            faults.append("loss.weights_mean is set, but the weights of multi-label data are not rescaled. Remove it.")
        if multi_label and self.model.mode == "head":
            faults.append("model.mode is 'head', which needs one label a row; with multi-label data known: full, lora.")
        if multi_label and self.decision.is_set:
            faults.append("decision is set, which multi-label data cannot have: each label is decided at a probability of 0.5. Remove it.")
        if multi_label and self.augment.generator != "none":
            faults.append("augment.generator is set; new rows are written for data with one label a row only. Set augment.generator: none.")
        if multi_label and self.ensemble.size > 1:
            faults.append("ensemble.size is above 1; ensembles of multi-label models are not supported. Set ensemble.size: 1.")
        if multi_label and self.balance.method == "class_balanced_batches":
            faults.append("balance.method is 'class_balanced_batches', which needs one label a row; use floor, power, oversample or undersample.")
        if not multi_label and self.split and self.split.primary_label:
            faults.append("split.primary_label is set, but the data hold one label a row. Remove it, or set data.label_columns.")
        if faults:
            raise ConfigError("\n".join(faults))

    def to_yaml(self) -> str:
        """YAML text that loads back to an equal Config."""
        return dump_yaml(self.to_dict())

    def with_training(self, **values: Any) -> "Config":
        """Copy with some `training` values set, for what the hardware decides."""
        return Config.model_validate(self.to_dict() | {"training": self.training_values | values})


def load_config(path: str, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """The checked Config of a YAML file and `section.key=value` overrides.

    Raises:
        ConfigError: with every fault on a line of its own, in the order of the file.
    """
    return check_config(read_yaml(path), overrides)


def check_config(source: YamlSource, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """The checked Config of values that were read, with overrides; faults as of `load_config`."""
    values = read_overrides(source, overrides)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(word_faults(error, values, source, Config.owned_keys, _known))) from error


def _known(section_path: tuple[Any, ...]) -> list[str]:
    """Names allowed inside the section at this path, for the wording of faults."""
    model: Any = Config
    for key in section_path:
        annotation = model.model_fields[key].annotation if hasattr(model, "model_fields") and key in model.model_fields else None
        choices = [c for c in getattr(annotation, "__args__", (annotation,)) if hasattr(c, "model_fields")]
        if not choices:
            return []
        model = choices[0]
    return list(model.model_fields)


def json_schema() -> dict[str, Any]:
    """JSON Schema of the YAML for editors; `configs/schema.json` is its committed copy."""
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "equipoise config"
    return schema

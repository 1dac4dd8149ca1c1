"""The YAML as typed models: load, override, check, back to text, JSON Schema for editors.

Value checks touch no file, network, torch or clock; `trainer/config/yaml_source.py` reads the YAML and words the faults.
"""

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, ValidationError, model_validator

from trainer.config.sections.augment import AugmentSection
from trainer.config.sections.balancing import (
    BalanceSection,
    DecisionSection,
    EnsembleSection,
    LossSection,
)
from trainer.config.sections.compare import CompareSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.config.sections.hub import HubSection
from trainer.config.sections.model import ModelSection, check_mode
from trainer.config.sections.speed import SpeedSection
from trainer.config.sections.training import (
    METRICS,
    MULTI_LABEL_METRICS,
    OWNED_KEYS,
    Section,
    TrainingSection,
)
from trainer.config.yaml_source import YamlSource, dump_yaml, read_overrides, read_yaml, word_faults
from trainer.errors import ConfigError, listing


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
    timeout_minutes: float = Field(default=30.0, gt=0)
    """Several processes: how long one may give no sign, or make no progress in training, before the run ends with an error that names it."""


class ReportSection(Section):
    """What the page of the run, `report.html`, and its card tell."""

    show_texts: bool = True
    """Quote the texts of the hardest mistakes, which `mistakes.jsonl` then holds too. Neither file is ever pushed to the Hub. \
Off: no text of the data, but their row numbers."""
    comparison: str | None = None
    """Folder of the comparison that chose this balancing, `<name>-compare`; the card then tells of it."""


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
    speed: SpeedSection = SpeedSection()
    """How a step is computed."""
    report: ReportSection = ReportSection()
    """What the page of the run, `report.html`, and its card tell."""
    compare: CompareSection = CompareSection()
    """What the command `compare` sets against each other; training reads none of it."""
    hub: HubSection = HubSection()
    """Pushing the model to the Hugging Face Hub after training."""

    owned_keys: ClassVar[dict[str, dict[str, str]]] = {"training": OWNED_KEYS}

    @model_validator(mode="after")
    def _sections_agree(self) -> "Config":
        if self.balance.scope == "all" and self.data.source is None:
            raise ValueError(
                "balance.scope is 'all' with given files; it needs data.source, one pool to balance and split"
            )
        if self.augment.generator != "none" and self.balance.scope == "all":
            raise ValueError(
                "augment.generator is set with balance.scope: all; synthetic rows join the training rows alone. Set balance.scope: train"
            )
        if self.augment.generator != "none" and self.balance.by:
            raise ValueError(
                "augment.generator is set with balance.by; synthetic rows have no domain. Set generator: none, or remove balance.by"
            )
        if (
            self.augment.generator != "none"
            and not isinstance(self.data.text_column, str)
            and len(self.data.text_column) > 1
        ):
            raise ValueError(
                "augment.generator is set with a text pair in data.text_column; only single texts can be written. Set generator: none"
            )
        if self.data.split_column:
            self._check_split_column()
        if self.split and self.split.by_time:
            self._check_by_time()
        if self.split and self.data.validation is not None:
            raise ValueError(
                "split is set although data.validation is given; remove split, or give train: alone"
            )
        if self.split and self.split.test and self.data.test is not None:
            raise ValueError("split.test is set although data.test is given; remove one of them")
        if self.loss.name == "focal" and self.training_values.get("label_smoothing_factor"):
            raise ValueError(
                "training.label_smoothing_factor has no meaning for loss.name: focal; remove it, or use cross_entropy or logit_adjusted"
            )
        self._check_streaming()
        check_mode(self.model.mode, self.balance.method, self.balance.resample_each_epoch)
        if self.hub.every == "save" and self.model.mode != "full":
            raise ValueError(
                f"hub.every is 'save' with model.mode: {self.model.mode}, whose checkpoints hold no whole model. Set hub.every: end"
            )
        return self

    def _check_split_column(self) -> None:
        if self.split and self.split.model_copy(update={"rare_classes": "keep"}) != SplitSection():
            raise ValueError(
                "split is set with data.split_column, which says where each row belongs; remove one of them (split.rare_classes may stay)"
            )
        if self.balance.scope == "all":
            raise ValueError(
                "balance.scope is 'all' with data.split_column; it needs one pool to balance and split. Set balance.scope: train"
            )

    def _check_by_time(self) -> None:
        if self.data.streaming:
            raise ValueError(
                "split.by_time is set with data.streaming, which splits rows by their text. Remove by_time, or set data.streaming: false"
            )
        if self.ensemble.kind == "folds":
            raise ValueError(
                "split.by_time is set with ensemble.kind: folds, which validate on rows of all times. Set ensemble.kind: seeds"
            )
        if self.balance.scope == "all":
            raise ValueError(
                "split.by_time is set with balance.scope: all, which balances rows before they are split. Set balance.scope: train"
            )

    def _check_streaming(self) -> None:
        if not self.data.streaming:
            return
        if self.balance.scope == "all":
            raise ValueError(
                "balance.scope is 'all' with data.streaming; rows are chosen after the split. Set balance.scope: train"
            )
        if self.augment.generator != "none":
            raise ValueError(
                "augment.generator is set with data.streaming; rows are chosen before new ones could be written. Set generator: none"
            )
        if self.ensemble.kind == "folds":
            raise ValueError(
                "ensemble.kind: folds with data.streaming, which splits rows once, by their text. Set ensemble.kind: seeds"
            )
        if self.split and self.split.primary_label:
            raise ValueError(
                "split.primary_label is set with data.streaming, which needs one label a row. Remove it, or set data.streaming: false"
            )

    @model_validator(mode="after")
    def _ensemble_fits(self) -> "Config":
        if self.ensemble.size > 1 and self.hub.push:
            raise ValueError(
                "hub.push with ensemble.size above 1: a repository holds one model; push a member's model folder, or set ensemble.size: 1"
            )
        if self.ensemble.size > 1 and self.ensemble.combine == "mean" and self.decision.thresholds:
            raise ValueError(
                "ensemble.combine: mean with decision.thresholds: members decide by their own thresholds; set ensemble.combine: majority"
            )
        streamed = (
            self.data.streaming and not self.balance.resample_each_epoch
        )  # every member then has the rows chosen once
        draws_rows = (
            not streamed and self.balance.method != "none" and self.balance.scope == "train"
        )
        if (
            self.ensemble.size > 1
            and self.ensemble.kind == "seeds"
            and self.model.mode == "head"
            and not draws_rows
        ):
            raise ValueError(
                "ensemble.kind: seeds with model.mode: head: members that see the same rows are equal; set kind: folds, or method: undersample"
            )
        if self.ensemble.kind == "folds" and (
            self.data.validation is not None or self.balance.scope == "all"
        ):
            raise ValueError(
                "ensemble.kind: folds cuts validation itself; remove data.validation, and balance.scope: all"
            )
        return self

    @property
    def run_path(self) -> Path:
        """The run folder; for one member of an ensemble the folder within."""
        path = Path(self.run.output_dir).expanduser() / self.run.name
        return path / f"member-{self.ensemble.member}" if self.ensemble.member else path

    @property
    def member_seed(self) -> int:
        """Seed of the head, the order and the draw of rows; the split has run.seed for every member."""
        return (self.run.seed + (self.ensemble.member or 1) - 1) % 2**32

    @model_validator(mode="after")
    def _prior_is_known(self) -> "Config":
        if self.decision.prior is not None:
            if self.loss.name == "focal" and self.loss.gamma != 0:
                raise ValueError(
                    "decision.prior has no known correction for loss.name: focal with gamma above 0; its scores are no log probabilities"
                )
            if self.training_values.get("label_smoothing_factor"):
                raise ValueError(
                    "decision.prior has no known correction for training.label_smoothing_factor; remove one of them"
                )
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

    @property
    def uses_cpu(self) -> bool:
        """Whether the CPU trains although there may be an accelerator."""
        return bool(self.training_values.get("use_cpu"))

    def check_problem_type(self, *, multi_label: bool) -> None:
        """Raises ConfigError for what data with one label a row, or with any number of them, cannot have; known once rows are read."""
        kind, metrics = (
            ("multi-label data", MULTI_LABEL_METRICS)
            if multi_label
            else ("one label a row", METRICS)
        )
        metric, faults = self.training_values["metric_for_best_model"], []
        if metric not in metrics:
            faults.append(
                f"training.metric_for_best_model is '{metric}'; with {kind} known: {listing(metrics)}."
            )
        if multi_label and self.training_values.get("label_smoothing_factor"):
            faults.append(
                "training.label_smoothing_factor is set, which multi-label data cannot have. Remove it."
            )
        if multi_label and self.loss.name != "cross_entropy":
            faults.append(
                f"loss.name is '{self.loss.name}'; with multi-label data known: cross_entropy, which is then binary for each label."
            )
        if multi_label and self.loss.weights_mean != "rows":
            faults.append(
                "loss.weights_mean is set, but the weights of multi-label data are not rescaled. Remove it."
            )
        if multi_label and self.model.mode == "head":
            faults.append(
                "model.mode is 'head', which needs one label a row; with multi-label data known: full, lora."
            )
        if multi_label and self.decision.is_set:
            faults.append(
                "decision is set, which multi-label data cannot have: each label is decided at a probability of 0.5. Remove it."
            )
        if multi_label and self.augment.generator != "none":
            faults.append(
                "augment.generator is set; new rows are written for data with one label a row only. Set augment.generator: none."
            )
        if multi_label and self.ensemble.size > 1:
            faults.append(
                "ensemble.size is above 1; ensembles of multi-label models are not supported. Set ensemble.size: 1."
            )
        if multi_label and self.balance.method == "class_balanced_batches":
            faults.append(
                "balance.method is 'class_balanced_batches', which needs one label a row; use floor, power, oversample or undersample."
            )
        if not multi_label and self.split and self.split.primary_label:
            faults.append(
                "split.primary_label is set, but the data hold one label a row. Remove it, or set data.label_columns."
            )
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
        raise ConfigError(
            "\n".join(word_faults(error, values, source, Config.owned_keys, _known))
        ) from error


def _known(section_path: tuple[Any, ...]) -> list[str]:
    """Names allowed inside the section at this path, for the wording of faults."""
    model: Any = Config
    for key in section_path:
        annotation = (
            model.model_fields[key].annotation
            if hasattr(model, "model_fields") and key in model.model_fields
            else None
        )
        choices = [
            c for c in getattr(annotation, "__args__", (annotation,)) if hasattr(c, "model_fields")
        ]
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

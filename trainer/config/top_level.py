"""The top level of the YAML: one field per section."""

from typing import Any

from pydantic import Field

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
from trainer.config.sections.model import ModelSection
from trainer.config.sections.run import ReportSection, RunSection
from trainer.config.sections.section import Section
from trainer.config.sections.speed import SpeedSection
from trainer.config.sections.training import TrainingSection


class TopLevel(Section):
    """All sections; each has been checked on its own."""

    run: RunSection = RunSection()
    """Where the run is written, and what makes it repeatable."""
    model: ModelSection
    """The pretrained model that is fine-tuned."""
    data: DataSection
    """Which rows are read, and how their columns are named."""
    split: SplitSection | None = None
    """Shares of the rows in each split. By default, 80 % train and 20 % validation, as far as these
    are not given as files."""
    augment: AugmentSection = AugmentSection()
    """New training rows for rare classes."""
    balance: BalanceSection = BalanceSection()
    """Which training rows the model sees, and how often."""
    loss: LossSection = LossSection()
    """The loss function, and how much each class counts in it."""
    decision: DecisionSection = DecisionSection()
    """How scores become predictions after training."""
    ensemble: EnsembleSection = EnsembleSection()
    """Several models that vote."""
    training: TrainingSection = Field(default_factory=lambda: TrainingSection.model_validate({}))  # type: ignore[valid-type]
    """transformers' TrainingArguments under their own names, with `early_stopping_patience` and
    `early_stopping_threshold`."""
    speed: SpeedSection = SpeedSection()
    """How a training step is computed."""
    report: ReportSection = ReportSection()
    """What `report.html`, the report of the run, and its model card show."""
    compare: CompareSection = CompareSection()
    """What `equipoise compare` trains. Ordinary training does not use this section."""
    hub: HubSection = HubSection()
    """Whether and how the trained model is pushed to the Hugging Face Hub."""

    @property
    def training_values(self) -> dict[str, Any]:
        """The keys of `training` that are set or have a default of ours."""
        return self.training.model_dump(exclude_unset=True)  # type: ignore[attr-defined]

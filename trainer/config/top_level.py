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
from trainer.config.sections.tune import TuneSection


class TopLevel(Section):
    """All sections; each has been checked on its own."""

    run: RunSection = RunSection()
    model: ModelSection
    data: DataSection
    split: SplitSection | None = None
    augment: AugmentSection = AugmentSection()
    balance: BalanceSection = BalanceSection()
    loss: LossSection = LossSection()
    decision: DecisionSection = DecisionSection()
    ensemble: EnsembleSection = EnsembleSection()
    training: TrainingSection = Field(default_factory=lambda: TrainingSection.model_validate({}))  # type: ignore[valid-type]
    speed: SpeedSection = SpeedSection()
    report: ReportSection = ReportSection()
    compare: CompareSection = CompareSection()
    tune: TuneSection = TuneSection()
    hub: HubSection = HubSection()

    @property
    def training_values(self) -> dict[str, Any]:
        """The keys of `training` that are set or have a default of ours."""
        return self.training.model_dump(exclude_unset=True)  # type: ignore[attr-defined]

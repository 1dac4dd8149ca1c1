"""The `run:` and `report:` sections: where a run is written, and what its report shows."""

from typing import Literal

from pydantic import Field, model_validator

from trainer.config.sections.section import Section, refuse


class RunSection(Section):
    """Where the run is written, and what makes it repeatable."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run folder in `output_dir`: letters, digits, dots, dashes and underscores."""
    output_dir: str = "runs"
    """Folder that contains the run folders."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of the split, the balancing, the new classification head, dropout and the order of the
    rows."""
    overwrite: bool = False
    """Replace an existing run in the same folder. An interrupted run with the same config is still
    resumed."""
    num_threads: int | None = Field(default=None, ge=1)
    """CPU threads per process. By default, the cores of the machine are divided among its
    processes."""
    num_processes: int | None = Field(default=None, ge=1)
    """Number of processes that must take part. With any other number, the run stops with an error
    at the start. Cluster scripts set it."""
    timeout_minutes: float = Field(default=30.0, gt=0)
    """With several processes: minutes that one of them may give no sign of life, or make no
    progress in training, before the run ends with an error that names it."""


class GroupLimits(Section):
    """The smallest numbers of training rows of head and medium classes; the rest is the tail."""

    head: int = Field(ge=2)
    """A class with this many training rows or more is in the head."""
    medium: int = Field(ge=1)
    """A class with this many training rows or more, and fewer than `head`, is in the middle."""

    @model_validator(mode="after")
    def _check(self) -> "GroupLimits":
        refuse(
            (
                self.head <= self.medium,
                f"head is {self.head} and medium {self.medium}; head must be the larger one, such"
                " as {head: 35, medium: 9}",
            )
        )
        return self


class ReportSection(Section):
    """What `report.html`, the report of the run, and its model card show."""

    show_texts: bool = True
    """Quote the texts of the worst mistakes in the report, and store them in `mistakes.jsonl`.
    Neither file is ever pushed to the Hub. If false, row numbers replace the texts."""
    comparison: str | None = None
    """Folder of the comparison, `<name>-compare`, that led to this way of balancing. The model card
    then describes it."""
    groups: Literal["thirds"] | GroupLimits = "thirds"
    """Groups of classes by their training rows before balancing: head, medium and tail. Their macro
    F1 is in `metrics.json`, page, card and comparison. `thirds` (the default): a third of the
    classes each; equal counts stay together, and fewer than 6 classes have no groups. Or limits:
    `{head: 35, medium: 9}` puts 35 rows and more in the head, 9 to 34 in the middle, and the rest
    in the tail."""

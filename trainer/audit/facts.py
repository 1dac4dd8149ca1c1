"""What the rules of the advice look at, and what a rule is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from trainer.training.length import PlannedLength

LENGTH_STEP = 64
"""A proposed max_length is a multiple of it, unless the model reads less."""
COMPARED = ("none", "thresholds", "class_weights", "oversample")
"""The strategies that an audit proposes to compare; `compare` names them so."""
ALSO_COMPARED = {
    "long_tail": ("sqrt_weights", "balanced_softmax"),
    "long_tail_of_labels": ("asymmetric", "distribution_balanced"),
    "rare_labels": ("asymmetric",),
}
"""{rule: further strategies to compare}."""
PROJECT = "rule of thumb of this project"


@dataclass(frozen=True)
class Facts:
    """The figures that the rules look at.

    Attributes:
        smallest_rows: training rows of the rarest class.
        smallest_share: share of the training rows that have the rarest of several labels.
        doubtful_ratio: label noise candidates over rows checked; 0 if nothing was checked.
        classifier_macro_f1: out-of-fold macro F1 of the classifier that checked them.
        soft_leakage_ratio: share of the validation or test rows that resemble a training row; the
            larger of the two.
        conflict_ratio: share of the rows that cleaning drops for conflicting labels, plus the
            share of the rows whose near duplicates have other labels.
        truncated_ratio: share of the rows that are truncated; 0 if no model is known.
        max_length: tokens at which rows are truncated.
        position_limit: most tokens that the model can read; None if it has no limit.
        needed_tokens: tokens that 99 % of the rows have at most; None if this is not known.
        odd_ratio: share of the rows with the most frequent kind of odd characters.
        odd_kind: this kind.
        planned: the steps of the training; None if they are not known, or if only a head is fitted.
        is_multi_label: whether a row may have several labels, which other methods balance.
    """

    imbalance_ratio: float
    minority_label: str
    num_classes: int
    smallest_rows: int
    smallest_share: float = 0.0
    doubtful_ratio: float = 0.0
    classifier_macro_f1: float = 0.0
    soft_leakage_ratio: float = 0.0
    conflict_ratio: float = 0.0
    truncated_ratio: float = 0.0
    max_length: int = 512
    position_limit: int | None = 512
    needed_tokens: int | None = None
    odd_ratio: float = 0.0
    odd_kind: str = "mojibake"
    planned: PlannedLength | None = None
    is_multi_label: bool = False

    @property
    def longer(self) -> int | None:
        """A larger max_length that most rows need; None if the model cannot read more."""
        wanted = max(self.needed_tokens or 2 * self.max_length, self.max_length + 1)
        rounded = -(-wanted // LENGTH_STEP) * LENGTH_STEP
        length = rounded if self.position_limit is None else min(rounded, self.position_limit)
        return length if length > self.max_length else None


@dataclass(frozen=True)
class Advice:
    """A rule that applied, with its text for these data."""

    rule: str
    kind: str
    condition: str
    text: str
    settings: str
    source: str
    measured: str = ""

    @property
    def compared(self) -> str:
        """The strategies that `equipoise compare` should measure for this advice, as YAML."""
        return f"[{','.join([*COMPARED, *ALSO_COMPARED.get(self.rule, ())])}]"


@dataclass(frozen=True)
class Rule:
    """One line of the decision table: if `applies`, say `words` and propose `settings`.

    Attributes:
        condition: `applies` in words, with its thresholds.
        settings: lines for the config; empty if the remedy is not a setting.
        measured: what the benchmarks found about the method, in a clause.
    """

    name: str
    kind: Literal["data", "training", "method"]
    condition: str
    applies: Callable[[Facts], bool]
    words: Callable[[Facts], str]
    settings: Callable[[Facts], str]
    source: str
    measured: str = ""

    def advice(self, facts: Facts) -> Advice:
        """Return the rule with its text for these data."""
        text, settings = self.words(facts), self.settings(facts)
        text += f" Measured: {self.measured}." if self.measured else ""
        return Advice(
            self.name, self.kind, self.condition, text, settings, self.source, self.measured
        )

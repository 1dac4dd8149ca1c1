"""What the data look like before training: class counts, imbalance, lengths in tokens."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trainer.arrays import Ints
from trainer.data.balancing.balance import BalancePlan
from trainer.data.cleaning.clean import CleanRows
from trainer.data.labels.class_order import count_drawn
from trainer.data.splitting.split import Splits
from trainer.data.tokens.special_tokens import NONE_SPECIAL, SpecialInTexts, special_sentence
from trainer.data.tokens.tokenise import TokenisedRows

MILD_RATIO, MODERATE_RATIO = 3, 10
"""Largest imbalance ratios that count as mild and as moderate."""


@dataclass(frozen=True)
class DataSummary:
    """Class distribution of each split, before balancing and as drawn for training.

    Attributes:
        counts: {split: rows of each class}; 'drawn' is what one training epoch sees.
        natural_C: real rows of each class before balancing: in the training split, or in the pool
            if the pool is balanced.
        synthetic_C: training rows of each class that a language model wrote; None without
            `augment`.
        num_rows: {split: rows} and 'natural', where they are not the sums of the counts because a
            multi-label row counts for each of its labels.
        before_heading: heading of `natural_C` where it does not count the training split.
    """

    labels: list[str]
    counts: dict[str, Ints]
    natural_C: Ints
    synthetic_C: Ints | None = None
    num_rows: dict[str, int] | None = None
    before_heading: str = "pool before balancing"

    @property
    def imbalance_ratio(self) -> float:
        """Rows of the largest class over rows of the smallest, cleaned and before balancing."""
        return float(self.natural_C.max() / self.natural_C.min())

    @property
    def severity(self) -> str:
        """Severity of the imbalance: balanced (1), mild (up to 3), moderate (up to 10), severe."""
        limits = {"balanced": 1, "mild": MILD_RATIO, "moderate": MODERATE_RATIO}
        ratio = self.imbalance_ratio
        return next((name for name, most in limits.items() if ratio <= most), "severe")

    @property
    def rarest_label(self) -> str:
        """The rarest class of the cleaned training rows; of equally rare ones the first."""
        return self.labels[int(self.natural_C.argmin())]

    @property
    def minority_label(self) -> str:
        """The rarest class that has rows in validation and test, or the rarest of all."""
        evaluated = [self.counts[name] for name in ("validation", "test") if name in self.counts]
        measured_C = np.all([counts_C > 0 for counts_C in evaluated or [self.natural_C]], axis=0)
        if not measured_C.any():
            return self.rarest_label
        counts_C = np.where(measured_C, self.natural_C, np.iinfo(np.int64).max)
        return self.labels[int(counts_C.argmin())]

    @property
    def columns(self) -> dict[str, Ints]:
        """{heading: rows of each class}: before balancing, after it, then the other splits."""
        return self._headed(
            self.counts | {"natural": self.natural_C, "synthetic": self.synthetic_C}
        )

    @property
    def totals(self) -> dict[str, int]:
        """{heading: rows} of the same columns."""
        counts = self.counts | {"natural": self.natural_C, "synthetic": self.synthetic_C}
        return self._headed(
            self.num_rows
            or {name: int(rows_C.sum()) for name, rows_C in counts.items() if rows_C is not None}
        )

    def to_facts(self) -> dict[str, Any]:
        """Return all attributes as plain values for a JSON file."""
        facts: dict[str, Any] = json.loads(json.dumps(asdict(self), default=np.ndarray.tolist))
        return facts

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> "DataSummary":
        """Return the summary that `to_facts` wrote."""
        arrays = {
            name: None if facts[name] is None else np.array(facts[name], np.int64)
            for name in ("natural_C", "synthetic_C")
        }
        counts = {name: np.array(values, np.int64) for name, values in facts["counts"].items()}
        return cls(**facts | arrays | {"counts": counts})

    def _headed(self, values: dict[str, Any]) -> dict[str, Any]:
        first = {self.before_heading: values["natural"]}
        if self.synthetic_C is not None:
            first = {"train": values["natural"], "synthetic": values["synthetic"]}
        elif np.array_equal(self.natural_C, self.counts["train"]):
            first = {"train": values["natural"]}
        others = {name: values[name] for name in self.counts if name not in ("train", "drawn")}
        return first | {"seen per epoch": values["drawn"]} | others


def summarise_splits(
    clean: CleanRows, splits: Splits, plan: BalancePlan, *, is_augmented: bool = False
) -> DataSummary:
    """Return the class distribution of the splits and of the rows that the plan draws.

    Args:
        is_augmented: whether a language model was asked for rows, even if it wrote none.
    """
    labels, targets = clean.labels, clean.targets
    ids = splits.named | {
        "drawn": splits.train[plan.positions()],
        "natural": splits.real_train if splits.pool is None else splits.pool,
    }
    counts = {name: count_drawn(targets, rows, len(labels)) for name, rows in ids.items()}
    natural_C = counts.pop("natural")
    if clean.streamed:
        natural_C = np.array(clean.streamed.natural["train"], np.int64)
        heading = "train before rows were chosen"
        return DataSummary(labels.names, counts, natural_C, before_heading=heading)
    return DataSummary(
        labels.names,
        counts,
        natural_C,
        labels.counts(targets[splits.synthetic]) if is_augmented else None,
        None if targets.ndim == 1 else {name: len(rows) for name, rows in ids.items()},
    )


@dataclass(frozen=True)
class Lengths:
    """Lengths in tokens of the rows of one split, and the rows with special tokens as text."""

    median: float
    p95: float
    longest: int
    truncated_ratio: float
    special: SpecialInTexts = NONE_SPECIAL

    def sentence(self, max_length: int) -> str:
        """Return the lengths as a clause."""
        return (
            f"{self.median:.0f} tokens in the median, {self.p95:.0f} at 95 %, {self.longest:,} at "
            f"most; {self.truncated_ratio:.1%} of the rows cut at max_length {max_length}"
        )


def summarise_lengths(rows: TokenisedRows) -> Lengths:
    """Return the lengths before truncation, and the share of rows that were truncated.

    For text pairs and slow tokenizers the lengths are those after truncation.
    """
    lengths_N = rows.lengths_N if rows.full_lengths_N is None else rows.full_lengths_N
    median, p95 = np.percentile(lengths_N, [50, 95])
    return Lengths(
        float(median),
        float(p95),
        int(lengths_N.max()),
        float(rows.truncated_N.mean()),
        rows.special,
    )


def special_words(lengths: dict[str, Lengths]) -> str:
    """Return one sentence on the rows with special tokens as text; empty if there are none."""
    return special_sentence({name: length.special for name, length in lengths.items()})

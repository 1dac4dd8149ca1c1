"""What the data look like before training: class counts and shares, imbalance, lengths and truncation."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.arrays import Array, Ints
from trainer.data.balancing.balance import BalancePlan
from trainer.data.cleaning.clean import Streamed
from trainer.data.labels.class_order import Labels, count_drawn
from trainer.data.splitting.split import Splits
from trainer.data.tokens.special_tokens import NONE_SPECIAL, SpecialInTexts, special_sentence
from trainer.data.tokens.tokenise import TokenisedRows

MILD_RATIO, MODERATE_RATIO = 3, 10
"""Largest imbalance ratios that count as mild and as moderate."""


@dataclass(frozen=True)
class Audit:
    """Class distribution of each split, natural and as drawn for training.

    Attributes:
        counts: {split: rows of each class}; 'drawn' is what one training epoch sees.
        natural_C: real rows of each class before balancing: of the training split, or of the pool where the pool is balanced.
        synthetic_C: rows of each class that a language model wrote, part of train; None without `augment`.
        num_rows: {split: rows} and 'natural', where they are not the sums of the counts: a multi-label row counts for each of its labels.
    """

    labels: list[str]
    counts: dict[str, Ints]
    natural_C: Ints
    synthetic_C: Ints | None = None
    num_rows: dict[str, int] | None = None
    before_heading: str = "pool before balancing"
    """What `natural_C` counts, where that is not the training split."""

    @property
    def imbalance_ratio(self) -> float:
        """Rows of the largest class over rows of the smallest, cleaned and before balancing."""
        return float(self.natural_C.max() / self.natural_C.min())

    @property
    def severity(self) -> str:
        """balanced (1), mild (up to 3), moderate (up to 10) or severe."""
        ratio = self.imbalance_ratio
        return (
            "balanced"
            if ratio == 1
            else "mild"
            if ratio <= MILD_RATIO
            else "moderate"
            if ratio <= MODERATE_RATIO
            else "severe"
        )

    @property
    def rarest_label(self) -> str:
        """The rarest class of the cleaned training rows, the first in their order where several
        are.
        """
        return self.labels[int(self.natural_C.argmin())]

    @property
    def minority_label(self) -> str:
        """The rarest class that validation and test can measure; where they measure none, the
        rarest of all.
        """
        measured_C = np.all(
            [self.counts[name] > 0 for name in ("validation", "test") if name in self.counts]
            or [self.natural_C > 0],
            axis=0,
        )
        return (
            self.labels[int(np.where(measured_C, self.natural_C, np.iinfo(np.int64).max).argmin())]
            if measured_C.any()
            else self.rarest_label
        )

    @property
    def columns(self) -> dict[str, Ints]:
        """{heading: rows of each class} in the order of reading: before balancing, after, then the other splits."""
        return self._headed(
            self.counts | {"natural": self.natural_C, "synthetic": self.synthetic_C}
        )

    @property
    def totals(self) -> dict[str, int]:
        """{heading: rows} of the same columns."""
        extra = [
            ("natural", self.natural_C),
            *([] if self.synthetic_C is None else [("synthetic", self.synthetic_C)]),
        ]
        return self._headed(
            self.num_rows
            or {name: int(counts_C.sum()) for name, counts_C in [*self.counts.items(), *extra]}
        )

    def to_facts(self) -> dict[str, Any]:
        """All that it holds, as plain values for a JSON file."""
        arrays = {"natural_C": self.natural_C, "synthetic_C": self.synthetic_C}
        plain: dict[str, Any] = {
            name: None if counts_C is None else counts_C.tolist()
            for name, counts_C in arrays.items()
        }
        counts = {name: counts_C.tolist() for name, counts_C in self.counts.items()}
        return plain | {
            "labels": self.labels,
            "counts": counts,
            "num_rows": self.num_rows,
            "before_heading": self.before_heading,
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> "Audit":
        """The audit of which `to_facts` gave these values."""
        arrays = {
            name: None if facts[name] is None else np.array(facts[name], np.int64)
            for name in ("natural_C", "synthetic_C")
        }
        counts = {name: np.array(values, np.int64) for name, values in facts["counts"].items()}
        return cls(**facts | arrays | {"counts": counts})

    def _headed(self, values: dict[str, Any]) -> dict[str, Any]:
        others = {name: values[name] for name in self.counts if name not in ("train", "drawn")}
        if self.synthetic_C is not None:
            return {
                "train": values["natural"],
                "synthetic": values["synthetic"],
                "seen per epoch": values["drawn"],
            } | others
        before = (
            "train" if np.array_equal(self.natural_C, self.counts["train"]) else self.before_heading
        )
        return {before: values["natural"], "seen per epoch": values["drawn"]} | others


def audit_splits(
    labels: Labels,
    targets: Array,
    splits: Splits,
    plan: BalancePlan,
    pool: Ints | None = None,
    *,
    augmented: bool = False,
    streamed: Streamed | None = None,
) -> Audit:
    """Audit of the splits.

    Args:
        targets: label id of every row (N,), or which labels it has (N, C), indexed by the row ids of `splits`.
        pool: ids of the rows that were balanced before the split, or None where only the training split is.
        streamed: what was read of which these rows were chosen; its counts are the natural ones.
        augmented: whether rows were to be written, if none was.
    """
    ids = splits.named | {
        "drawn": splits.train[plan.positions()],
        "natural": splits.real_train if pool is None else pool,
    }
    counts = {name: count_drawn(targets, rows, len(labels)) for name, rows in ids.items()}
    natural_C = counts.pop("natural")
    synthetic_C = labels.counts(targets[splits.synthetic]) if augmented else None
    if streamed:
        return Audit(
            labels.names,
            counts,
            np.array(streamed.natural["train"], np.int64),
            before_heading="train before rows were chosen",
        )
    return Audit(
        labels.names,
        counts,
        natural_C,
        synthetic_C,
        None if targets.ndim == 1 else {name: len(rows) for name, rows in ids.items()},
    )


@dataclass(frozen=True)
class Lengths:
    """Lengths in tokens of the rows of one split.

    Attributes:
        special: rows whose text holds special tokens.
    """

    median: float
    p95: float
    longest: int
    truncated_ratio: float
    special: SpecialInTexts = NONE_SPECIAL

    def sentence(self, max_length: int) -> str:
        """The lengths in words."""
        words = f"{self.median:.0f} tokens in the median, {self.p95:.0f} at 95 %, {self.longest:,} at most"
        return f"{words}; {self.truncated_ratio:.1%} of the rows cut at max_length {max_length}"


def audit_lengths(rows: TokenisedRows) -> Lengths:
    """Lengths before truncation (after it for text pairs and slow tokenizers), and the share of rows that were cut."""
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
    """How many rows of each split hold special tokens as text, in one sentence; empty where none does."""
    return special_sentence({name: length.special for name, length in lengths.items()})

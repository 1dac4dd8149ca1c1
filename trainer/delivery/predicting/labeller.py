"""Add the answers of a classifier to rows. See `label_file.py`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from trainer.data.cleaning.missing_values import MISSING_TEXTS
from trainer.data.labels.list_parsing import item_text
from trainer.data.reading.formats.records import Record
from trainer.errors import DataError

if TYPE_CHECKING:
    from trainer.delivery.predicting.predict import Classifier, Text


@dataclass
class Labeller:
    """Adds labels and probabilities to rows.

    Args:
        text_columns: the column of the text; for pairs also a second one, and further columns that
            are joined to the second by line breaks.
        probabilities: whether each label gets a column.
        prefix: the beginning of the names of added columns.
    Attributes:
        counts: numbers of rows so far (`rows`), of rows without a text (`empty`) and of rows that
            are longer than the model reads (`cut`).
    """

    classifier: "Classifier"
    text_columns: Sequence[str]
    probabilities: bool = False
    prefix: str = "predicted_"
    counts: dict[str, int] = field(default_factory=lambda: {"rows": 0, "empty": 0, "cut": 0})

    @cached_property
    def added(self) -> pa.Schema:
        """The added columns.

        They are `predicted_label` (a list for a multi-label model), its probability
        `predicted_score`, and `predicted_probability_<label>`.
        """
        kind = pa.list_(pa.string()) if self.classifier.is_multi_label else pa.string()
        names = [
            "score",
            *(f"probability_{label}" for label in self.classifier.labels if self.probabilities),
        ]
        return pa.schema(
            [
                (f"{self.prefix}label", kind),
                *((f"{self.prefix}{name}", pa.float64()) for name in names),
            ]
        )

    def refuse_taken_names(self, records: list[Record], places: list[str]) -> None:
        """Raise DataError if a row already has a column with an added name."""
        added = set(self.added.names)
        for record, where in zip(records, places, strict=True):
            if taken := record.keys() & added:
                raise DataError(
                    f"{where}: has a column '{min(taken)}' already, which the prediction would"
                    " overwrite. Give --prefix model_, or another beginning of the added names."
                )

    def label(self, records: list[Record], places: list[str]) -> list[Record]:
        """Return the rows with their labels; a row without a text stays and gets no label.

        Args:
            places: file and line of each row, for messages.
        """
        self.refuse_taken_names(records, places)
        texts = [self._text(record, place) for record, place in zip(records, places, strict=True)]
        chosen = [n for n, text in enumerate(texts) if text is not None]
        answers = self.classifier.classify([text for text in texts if text is not None])
        names, labels = self.added.names, self.classifier.labels
        labelled = [record | dict.fromkeys(names) for record in records]
        for n, p_C, decided in zip(chosen, answers.probabilities_NC, answers.decided, strict=True):
            label_id = int(p_C.argmax()) if self.classifier.is_multi_label else int(decided)
            label = (
                [name for name, has in zip(labels, decided, strict=True) if has]
                if self.classifier.is_multi_label
                else labels[label_id]
            )
            scores = [p_C[label_id], *(p_C if self.probabilities else [])]
            labelled[n].update(
                zip(names, [label, *(float(f"{p:.6g}") for p in scores)], strict=True)
            )
        self.counts["rows"] += len(records)
        self.counts["empty"] += len(records) - len(chosen)
        self.counts["cut"] += int(answers.truncated_N.sum())
        return labelled

    def _text(self, record: Record, where: str) -> "Text | None":
        """Return the text of a row as training reads it; None if it is empty or a missing value."""
        first, *rest = (_as_text(record.get(name), name, where) for name in self.text_columns)
        if not rest:
            return None if first in ("", *MISSING_TEXTS) else first
        return {"text": first, "text_pair": "\n".join(rest)} if first or any(rest) else None


def _as_text(value: Any, name: str, where: str) -> str:
    """Return a value as the readers write it, stripped; missing values are empty."""
    if isinstance(value, list | dict | bytes):
        raise DataError(
            f"{where}: column '{name}' holds a {type(value).__name__};"
            " needed: one text or number a row."
        )
    return (item_text(value) or "").strip()

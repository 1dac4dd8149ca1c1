"""The texts of the hardest mistakes, for mistakes.jsonl."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.evaluation.scores import Probabilities
from trainer.run_folder.predictions import Predictions

if TYPE_CHECKING:
    from trainer.evaluation.outcome import Outcome

MOST_MISTAKES = 30
MOST_CHARACTERS = 600
"""Longest quoted text."""


def mistakes_to_quote(
    rows_N: Any, outcome: "Outcome", labels: list[str], texts_of: Callable[[Any], list[str]]
) -> list[dict[str, Any]]:
    """Return the lines of mistakes.jsonl: the hardest mistakes with their texts.

    Args:
        rows_N: row id of each row of the outcome.
        texts_of: gives the texts of row ids; of a pair, both texts.
    """
    found = Predictions(
        np.asarray(rows_N),
        outcome.label_ids_N,
        outcome.predicted_N,
        Probabilities(outcome.log_p_NC),
    )
    mistakes = found.hardest(labels, MOST_MISTAKES)
    rows = sorted({mistake.row for mistake in mistakes})
    texts = dict(zip(rows, texts_of(np.array(rows, np.int64)), strict=True))
    return [
        {
            "row": m.row,
            "label": m.label,
            "predicted": m.predicted,
            "probability": m.probability,
            "text": _cut(texts[m.row]),
        }
        for m in mistakes
    ]


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"

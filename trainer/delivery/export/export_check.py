"""Compare the answers and the speed of exported models. Legend: N rows, C labels."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from trainer.arrays import Array, Floats, Ints
from trainer.delivery.predicting.predict import Classifier, Text
from trainer.display.terminal import console
from trainer.evaluation.multi_label import evaluate
from trainer.progress import progress_bar

ROWS_AT_ONCE = 1_000
ROUNDED_ROWS = 256
"""Rows on which the rounding of the original is measured."""
SIZES = (1, 8, 32)
"""Rows of a call in the measurement of speed."""
ROUNDS, MOST_SECONDS = 20, 5.0
"""Most calls of each size, and the time after which to stop; at least three calls are made."""


@dataclass(frozen=True)
class Rows:
    """Rows for the comparison of two models.

    Attributes:
        texts: the texts or pairs.
        row_ids_N: the id of each row in its source.
        targets: label ids (N,), or which labels each row has (N, C), in the model's order.
        name: a description, for messages.
    """

    texts: Sequence[Text]
    row_ids_N: Ints
    targets: Array
    name: str


AnswersOfRows = tuple[Floats, Array]
"""Probabilities (N, C), and label ids (N,) or which labels each row has (N, C)."""


def answers_of(model: Classifier, rows: Rows) -> AnswersOfRows:
    """Return the answers of a model for all rows."""
    starts = range(0, len(rows.texts), ROWS_AT_ONCE)
    parts = [
        model.classify(rows.texts[start : start + ROWS_AT_ONCE])
        for start in progress_bar(starts, desc="Checking", unit=f" x {ROWS_AT_ONCE} rows", delay=2)
    ]
    return (
        np.concatenate([part.probabilities_NC for part in parts]),
        np.concatenate([part.decided for part in parts]),
    )


def compare(
    original: Classifier, answers: AnswersOfRows, exported: dict[str, Classifier], rows: Rows
) -> dict[str, Any]:
    """Return the differences between the answers of each exported model and the original.

    Args:
        answers: of the original.
        exported: {"float32" or "int8": model}.
    Returns:
        The values for export.json: rows, data, macro_f1 of the original, and for each kind
        macro_f1, max_probability_difference, labels_differ and differing, a list of rows.
    """
    p_NC, decided = answers
    found: dict[str, Any] = {
        "rows": len(rows.texts),
        "data": rows.name,
        "macro_f1": _macro_f1(p_NC, decided, rows, original),
    }
    for kind, model in exported.items():
        other_p_NC, other = answers_of(model, rows)
        difference_N = np.abs(other_p_NC - p_NC).max(axis=1)
        differs_N = (other != decided).reshape(len(difference_N), -1).any(axis=1)
        found[kind] = {
            "macro_f1": _macro_f1(other_p_NC, other, rows, original),
            "max_probability_difference": float(difference_N.max()),
            "labels_differ": int(differs_N.sum()),
            "differing": [
                {
                    "row": int(rows.row_ids_N[n]),
                    "original": _label(decided[n], original.labels),
                    kind: _label(other[n], original.labels),
                    "max_probability_difference": float(difference_N[n]),
                }
                for n in np.flatnonzero(differs_N)
            ],
        }
    return found


def rounding(model: Classifier, texts: Sequence[Text]) -> float:
    """Return how much probabilities differ at most if texts are read together and one by one."""
    texts = texts[:ROUNDED_ROWS]
    alone_NC = np.concatenate([model.probabilities([text]) for text in texts])
    return float(np.abs(alone_NC - model.probabilities(texts)).max())


def _macro_f1(p_NC: Floats, decided: Array, rows: Rows, model: Classifier) -> float:
    tiny = np.finfo(np.float64).tiny
    log_p_NC = np.log(np.maximum(p_NC, tiny))
    scores_NC = log_p_NC - np.log(np.maximum(1 - p_NC, tiny)) if model.is_multi_label else log_p_NC
    return evaluate(scores_NC, rows.targets, model.labels, decided).macro_f1


def _label(decided: Any, labels: list[str]) -> str | list[str]:
    if np.ndim(decided) == 0:
        return labels[int(decided)]
    return [labels[c] for c in np.flatnonzero(decided)]


def measure_speed(
    models: dict[str, Classifier], texts: Sequence[Text]
) -> dict[str, dict[int, float]]:
    """Return {kind: {rows of a call: median seconds, with tokenising}}.

    The models take turns on the same texts.
    """
    shuffled = [
        texts[n] for n in np.random.default_rng(0).permutation(len(texts))[: ROUNDS * max(SIZES)]
    ]
    seconds: dict[str, dict[int, float]] = {kind: {} for kind in models}
    for size in SIZES:
        taken: dict[str, list[float]] = {kind: [] for kind in models}
        begin = time.perf_counter()
        for number in range(ROUNDS + 1):  # the first one warms up
            batch = [shuffled[(number * size + n) % len(shuffled)] for n in range(size)]
            for kind, model in models.items():
                start = time.perf_counter()
                model.classify(batch)
                taken[kind].append(time.perf_counter() - start)
            if number >= 3 and time.perf_counter() - begin > MOST_SECONDS:
                break
        for kind, times in taken.items():
            seconds[kind][size] = float(np.median(times[1:]))
    return seconds


def print_check(found: dict[str, Any]) -> None:
    """Print the differences between each exported model and the original."""
    if "not_checked" in found:
        console.print(f"Not compared with the original: {found['not_checked']}")
    for kind in (kind for kind in ("float32", "int8") if kind in found):
        gain = found[kind]["macro_f1"] - found["macro_f1"]
        console.print(f"{kind}: {comparison_words(found, kind)} ({gain:+.4f}).")


def comparison_words(found: dict[str, Any], kind: str) -> str:
    """Return a sentence about the result of `compare`, without its full stop."""
    one = found[kind]
    return (
        f"{one['labels_differ']:,} of {found['rows']:,} labels differ on {found['data']};"
        f" probabilities differ by at most {one['max_probability_difference']:.2g};"
        f" macro F1 {one['macro_f1']:.4f}, original {found['macro_f1']:.4f}"
    )


def print_speed(
    seconds: dict[str, dict[int, float]], sizes_bytes: dict[str, int], num_threads: int
) -> None:
    """Print a table with the milliseconds of a call and the speed relative to the original."""
    table = Table(
        title=f"On this CPU, {num_threads} thread{'s' if num_threads > 1 else ''}:"
        " median time of a call, with tokenising",
        title_justify="left",
    )
    table.add_column("model")
    for heading in (
        "MB",
        *(f"{size} row{'s' if size > 1 else ''}, ms" for size in SIZES),
        "rows/s",
    ):
        table.add_column(heading, justify="right")
    for kind, by_size in seconds.items():
        cells = [
            f"{by_size[size] * 1000:,.1f} ({seconds['original'][size] / by_size[size]:.2f}x)"
            for size in SIZES
        ]
        table.add_row(
            kind,
            f"{sizes_bytes[kind] / 1e6:,.1f}",
            *cells,
            f"{max(SIZES) / by_size[max(SIZES)]:,.0f}",
        )
    console.print(table)

"""Whether an exported model answers as its original, and how fast it is. Legend: N rows, C labels."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table
from tqdm.auto import tqdm

from trainer.arrays import Array, Floats, Ints
from trainer.delivery.predicting.predict import Classifier, Text
from trainer.delivery.predicting.saved_model import Judged
from trainer.display.terminal import console
from trainer.evaluation.multi_label import evaluate

ROWS_AT_ONCE = 1_000
SIZES = (1, 8, 32)
"""Rows of a call whose time is taken."""
ROUNDS, MOST_SECONDS = 20, 5.0
"""Calls of each size and model, and when to stop before that; at least three."""


@dataclass(frozen=True)
class Rows:
    """Rows that both models answer.

    Attributes:
        texts: without their labels.
        row_ids_N: id of each in its source.
        targets: label ids (N,), or which labels each row has (N, C), in the order of the model's labels.
        name: what they are, in words.
    """

    texts: Sequence[Text]
    row_ids_N: Ints
    targets: Array
    name: str


def compare(original: Classifier, exported: dict[str, Classifier], rows: Rows) -> dict[str, Any]:
    """What each exported model answers differently, for export.json.

    Args:
        exported: {kind: model}.
    Returns:
        {rows, data, macro_f1 of the original, one entry by kind: {macro_f1, max_probability_difference, labels_differ, differing: [...]}}.
    """
    everyone = {"original": original, **exported}
    starts = range(0, len(rows.texts), ROWS_AT_ONCE)
    parts: dict[str, list[Judged]] = {kind: [] for kind in everyone}
    for start in tqdm(
        starts, desc="Checking", unit=f" x {ROWS_AT_ONCE} rows", delay=2, disable=None, leave=False
    ):
        texts = rows.texts[start : start + ROWS_AT_ONCE]
        for kind, model in everyone.items():
            parts[kind].append(model.judge(texts))
    p = {
        kind: np.concatenate([part.probabilities_NC for part in judged])
        for kind, judged in parts.items()
    }
    decided = {
        kind: np.concatenate([part.decided for part in judged]) for kind, judged in parts.items()
    }
    found: dict[str, Any] = {
        "rows": len(rows.texts),
        "data": rows.name,
        "macro_f1": _macro_f1(p["original"], decided["original"], rows, original),
    }
    for kind in exported:
        difference_N = np.abs(p[kind] - p["original"]).max(axis=1)
        other = np.flatnonzero(
            (decided[kind] != decided["original"]).reshape(len(difference_N), -1).any(axis=1)
        )
        found[kind] = {
            "macro_f1": _macro_f1(p[kind], decided[kind], rows, original),
            "max_probability_difference": float(difference_N.max()),
            "labels_differ": len(other),
            "differing": [
                {
                    "row": int(rows.row_ids_N[n]),
                    "original": _label(decided["original"][n], original.labels),
                    kind: _label(decided[kind][n], original.labels),
                    "max_probability_difference": float(difference_N[n]),
                }
                for n in other
            ],
        }
    return found


def _macro_f1(p_NC: Floats, decided: Array, rows: Rows, model: Classifier) -> float:
    tiny = np.finfo(np.float64).tiny
    log_p_NC = np.log(np.maximum(p_NC, tiny))
    scores_NC = log_p_NC - np.log(np.maximum(1 - p_NC, tiny)) if model.is_multi_label else log_p_NC
    return evaluate(scores_NC, rows.targets, model.labels, decided).macro_f1


def _label(decided: Any, labels: list[str]) -> str | list[str]:
    return (
        labels[int(decided)]
        if np.ndim(decided) == 0
        else [labels[c] for c in np.flatnonzero(decided)]
    )


def measure_speed(
    models: dict[str, Classifier], texts: Sequence[Text]
) -> dict[str, dict[int, float]]:
    """Seconds of a call, tokenising included: {kind: {rows of a call: median}}; the models take turns on the same texts."""
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
                model.judge(batch)
                taken[kind].append(time.perf_counter() - start)
            if number >= 3 and time.perf_counter() - begin > MOST_SECONDS:
                break
        for kind, times in taken.items():
            seconds[kind][size] = float(np.median(times[1:]))
    return seconds


def print_check(found: dict[str, Any]) -> None:
    """What each exported model answers differently, in words."""
    if "not_checked" in found:
        console.print(f"Not compared with the original: {found['not_checked']}")
    for kind in (kind for kind in ("float32", "int8") if kind in found):
        one, gained = found[kind], found[kind]["macro_f1"] - found["macro_f1"]
        console.print(
            f"{kind}: {one['labels_differ']:,} of {found['rows']:,} labels differ on {found['data']}; probabilities by at most "
            f"{one['max_probability_difference']:.2g}; macro F1 {one['macro_f1']:.4f}, original {found['macro_f1']:.4f} ({gained:+.4f})."
        )


def print_speed(
    seconds: dict[str, dict[int, float]], sizes_bytes: dict[str, int], num_threads: int
) -> None:
    """Milliseconds of a call, and how many times faster than the original's."""
    table = Table(
        title=f"On this CPU, {num_threads} thread{'s' if num_threads > 1 else ''}: median time of a call, tokenising included",
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

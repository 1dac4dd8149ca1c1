"""What all our pictures share: matplotlib without a screen, and its colors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

INK, BEFORE, AFTER, GRID = "#22303c", "#9fb3c8", "#1f6fb2", "#e3e8ee"
plt.rcParams.update(
    dict.fromkeys(("axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK)
)
plt.rcParams.update(
    {"axes.edgecolor": GRID, "font.size": 10, "axes.axisbelow": True, "text.parse_math": False}
)  # labels may hold $


def whole_epochs(axis: Any, epochs: list[float]) -> None:
    """Ticks of whole epochs, within one epoch of a few parts of it; one evaluation alone stands in the middle of its axis."""
    if len(set(epochs)) == 1:
        axis.set_xticks(epochs[:1], [f"{epochs[0]:.3g}"])
        axis.set_xlim(epochs[0] - 0.5, epochs[0] + 0.5)
        return
    is_fraction = bool(epochs) and max(epochs) - min(epochs) < 2
    has_parts = is_fraction and any(epoch != int(epoch) for epoch in epochs)
    ticks = MaxNLocator(nbins=4) if has_parts else MaxNLocator(integer=True, min_n_ticks=1)
    axis.xaxis.set_major_locator(ticks)


@contextmanager
def closing_figures() -> Iterator[None]:
    """Close the figures that a fault left open in the block, which would keep their memory."""
    before = set(plt.get_fignums())
    try:
        yield
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)

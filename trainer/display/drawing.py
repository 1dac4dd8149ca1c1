"""Colors and style of all pictures.

Pictures are `Figure` objects without pyplot: they need no screen, no backend and no closing.
"""

from typing import Any

import matplotlib
from matplotlib.ticker import MaxNLocator

INK, BEFORE, AFTER, GRID = "#22303c", "#9fb3c8", "#1f6fb2", "#e3e8ee"
COLORS = (
    "#1f6fb2",
    "#d1495b",
    "#2e8b57",
    "#e0902c",
    "#7a5195",
    "#17808f",
    "#8c6d46",
    "#c2559c",
    "#5f6f7f",
    "#a3a500",
)
WIDTH, HEIGHT = 4.4, 3.1
"""Inches of one chart. On a phone, which is 350 pixels wide, its text is 11 pixels high."""
matplotlib.rc("xtick", color=INK)
matplotlib.rc("ytick", color=INK)
matplotlib.rc("text", color=INK, parse_math=False)  # labels may contain $
matplotlib.rc("axes", labelcolor=INK, edgecolor=GRID, axisbelow=True)
matplotlib.rc("axes", titlesize=10, titlelocation="left")
matplotlib.rc("axes.spines", top=False, right=False)
matplotlib.rc("legend", frameon=False, fontsize=8)
matplotlib.rc("grid", color=GRID)
matplotlib.rc("font", size=10)


def color_of(number: int) -> str:
    """Return the color of one of several lines."""
    return COLORS[number % len(COLORS)]


def mark_epochs(axis: Any, epochs: list[float]) -> None:
    """Set ticks at whole epochs, or at fractions if there are less than two epochs."""
    if len(set(epochs)) == 1:
        axis.set_xticks(epochs[:1], [f"{epochs[0]:.3g}"])
        axis.set_xlim(epochs[0] - 0.5, epochs[0] + 0.5)
        return
    is_short = bool(epochs) and max(epochs) - min(epochs) < 2
    has_fractions = is_short and any(epoch != int(epoch) for epoch in epochs)
    ticks = MaxNLocator(nbins=4) if has_fractions else MaxNLocator(integer=True, min_n_ticks=1)
    axis.xaxis.set_major_locator(ticks)

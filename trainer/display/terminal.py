"""The console that prints tables."""

from rich.console import Console

console = Console(
    soft_wrap=True, markup=False, emoji=False, highlight=False, force_jupyter=False
)  # in notebooks plain text too: in order with print, and without colour codes in saved outputs

"""The console that prints tables."""

from rich.console import Console

console = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)

"""The console that prints tables. It wraps lines between words on terminals, not in files."""

import sys

from rich.console import Console

console = Console(
    soft_wrap=not sys.stdout.isatty(),
    markup=False,
    emoji=False,
    highlight=False,
    force_jupyter=False,
    force_terminal=False if "ipykernel" in sys.modules else None,  # it sets FORCE_COLOR
)  # in notebooks plain text too: in order with print, and without colour codes in saved outputs

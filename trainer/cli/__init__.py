"""The command line, `equipoise`.

Each command is a few lines that call one function. It imports heavy libraries inside its function,
so that help and config errors appear at once.
"""

from trainer.cli.inspecting import audit_command, report_command
from trainer.cli.training import compare_command, split_command, train_command, tune_command
from trainer.cli.typer_app import app, main, run_single

__all__ = [
    "app",
    "audit_command",
    "compare_command",
    "main",
    "report_command",
    "run_single",
    "split_command",
    "train_command",
    "tune_command",
]

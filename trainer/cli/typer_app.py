"""The Typer application: all commands by group, in the order of `equipoise --help`."""

from collections.abc import Callable

import typer

from trainer.cli.inspecting import (
    audit_command,
    cache_command,
    folder_command,
    report_command,
    schema_command,
)
from trainer.cli.publishing import convert_command, export_command, push_command
from trainer.cli.starting import init_command
from trainer.cli.training import compare_command, split_command, train_command
from trainer.cli.using_models import evaluate_command, predict_command, serve_command

COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Start": (init_command,),
    "Training": (train_command, compare_command, split_command),
    "Using a model": (predict_command, evaluate_command, serve_command),
    "Publishing": (export_command, convert_command, push_command),
    "Inspection": (audit_command, report_command, folder_command, cache_command, schema_command),
}
"""The commands of each group. A command is named like its function, without `_command`."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train and evaluate text classifiers on imbalanced data, from one YAML file.",
)
for group, commands in COMMANDS.items():
    for command in commands:
        name = command.__name__.removesuffix("_command")
        app.command(name, rich_help_panel=group)(command)


def main() -> None:
    """Run the command `equipoise`."""
    app(prog_name="equipoise")


def run_single(command: Callable[..., None]) -> None:
    """Run one command as a script of its own, for `scripts/`."""
    script = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    script.command()(command)
    script()

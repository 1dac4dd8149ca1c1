"""The Typer application: all commands by group, in the order of `equipoise --help`."""

import inspect
import io
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from trainer import __version__
from trainer.cli.inspecting import (
    audit_command,
    cache_command,
    folder_command,
    report_command,
    schema_command,
)
from trainer.cli.options import flag
from trainer.cli.publishing import convert_command, export_command, push_command
from trainer.cli.starting import init_command
from trainer.cli.training import compare_command, split_command, train_command, tune_command
from trainer.cli.using_models import evaluate_command, predict_command, serve_command
from trainer.launch.distributed import SAME_VERSIONS

COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Start": (init_command,),
    "Training": (train_command, compare_command, tune_command, split_command),
    "Using a model": (predict_command, evaluate_command, serve_command),
    "Publishing": (export_command, convert_command, push_command),
    "Inspection": (audit_command, report_command, cache_command),
    "For scripts": (folder_command, schema_command),
}
"""The commands of each group. A command is named like its function, without `_command`; the last
paragraph of its docstring is an example."""

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


def print_version(is_asked: bool) -> None:
    """Print the versions that a bug report needs, and exit."""
    if is_asked:
        typer.echo(f"equipoise {__version__}")
        typer.echo(f"Python {platform.python_version()}, {platform.platform(terse=True)}")
        typer.echo(", ".join(f"{name} {version(name)}" for name in SAME_VERSIONS))
        raise typer.Exit


@app.callback(
    epilog="Example: equipoise train tweets.yaml. For its options: equipoise train --help"
)
def _equipoise(
    _: Annotated[
        bool,
        flag(
            "Show the versions of equipoise and of its libraries, and exit.",
            "--version",
            is_eager=True,
            callback=print_version,
        ),
    ] = False,
) -> None:
    """Train and evaluate text classifiers on imbalanced data, from one YAML file."""


def add_command(
    typer_app: typer.Typer, command: Callable[..., None], name: str | None = None, panel: str = ""
) -> None:
    """Add a command, whose help ends with the example of its docstring."""
    purpose, _, example = inspect.cleandoc(command.__doc__ or "").partition("\n\nExample: ")
    epilog = f"Example: {example}"
    typer_app.command(name, help=purpose, epilog=epilog, rich_help_panel=panel)(command)


for group, commands in COMMANDS.items():
    for command in commands:
        add_command(app, command, command.__name__.removesuffix("_command"), group)


def main() -> None:
    """Run the command `equipoise`; in files, its lines appear at once."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    app(prog_name="equipoise")


def run_single(command: Callable[..., None]) -> None:
    """Run one command as a script of its own, for `scripts/`."""
    script = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    add_command(script, command)
    script()

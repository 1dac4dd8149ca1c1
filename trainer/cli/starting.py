"""The command that starts a project: init."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.checking import leave_out_torch
from trainer.cli.options import described, flag
from trainer.errors import ConfigError, listing
from trainer.launch.exits import worded_errors


@worded_errors()
def init_command(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help="File of rows (CSV, TSV, JSON, Parquet, Arrow, Excel), or a folder with files"
            " named train and test.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        list[str] | None, described("Column of the text; give it twice for a text pair.", "--text")
    ] = None,
    label: Annotated[
        list[str] | None,
        described("Column of the label; repeat it for columns of 0 and 1.", "--label"),
    ] = None,
    model: Annotated[
        str | None,
        described("Pretrained model: folder or Hub id. Default: chosen by language.", "--model"),
    ] = None,
    output: Annotated[
        Path | None, described("The YAML. Default: <name of the file>.yaml in this folder.")
    ] = None,
    example: Annotated[
        str | None,
        described("Write a config that comes with the package, such as quickstart, instead."),
    ] = None,
    yes: Annotated[bool, flag("Never ask a question.", "--yes")] = False,
    overwrite: Annotated[bool, flag("Replace an existing YAML.", "--overwrite")] = False,
) -> None:
    """Look at a file of rows, and write a commented YAML that suits it.

    Example: equipoise init tweets.csv
    """
    if (data is None) == (example is None):
        raise ConfigError(
            "init needs either a file of rows, such as init tweets.csv, or --example quickstart."
        )
    given = {"--text": text, "--label": label, "--model": model}
    if example is not None and (unused := [option for option, value in given.items() if value]):
        raise ConfigError(
            f"--example {example}: is written as it is, so {listing(unused)} cannot be used. Leave"
            " it out, or edit the YAML afterwards."
        )
    from trainer.data.reading.formats import readers
    from trainer.starting import command, examples

    asking = command.Asking(text or (), label or (), command.may_ask(yes=yes))
    if example is not None:
        examples.text_of(example)  # raises if there is no such example
    target = output or Path(f"{example or readers.run_name(data or '')}.yaml")
    command.refuse_existing(target, asking, overwrite=overwrite)
    if data is None:
        examples.write_example(str(example), target)
        return
    found = command.look(data, asking)
    if "torch" not in sys.modules:
        leave_out_torch()  # not before: SciPy, which splits the rows, fails then
    command.write(found, target, model)

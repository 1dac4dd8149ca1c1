"""Options and arguments that several commands share."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

import typer

from trainer.config.config import Config


def described(text: str, *names: str, **more: Any) -> Any:
    """Return an option whose help text itself says what the default is."""
    return typer.Option(*names, help=text, show_default=False, **more)


def flag(text: str, *names: str, **more: Any) -> Any:
    """Return an option without a value."""
    return described(text, *names, metavar="", **more)


def config_keys(incomplete: str) -> Iterator[str]:
    """Yield the keys of a config that start with a text, for the completion of `--set`."""
    for section, field in Config.model_fields.items():
        kinds: tuple[Any, ...] = (field.annotation, *get_args(field.annotation))
        for key in next(kind.model_fields for kind in kinds if hasattr(kind, "model_fields")):
            if (name := f"{section}.{key}").startswith(incomplete):
                yield name


ConfigArgument = Annotated[
    str | None,
    typer.Argument(metavar="CONFIG", help="YAML file of the run.", show_default=False),
]
ConfigOption = Annotated[
    str | None, described("Another way to give CONFIG.", "--config", metavar="CONFIG")
]
SetOption = Annotated[
    list[str] | None,
    described(
        "Override a value of the config; repeatable.",
        "--set",
        metavar="SECTION.KEY=VALUE",
        autocompletion=config_keys,
    ),
]
WITHOUT_YAML = "Without a YAML file"
RowsOption = Annotated[
    str | None,
    described(
        "The rows: a file, glob, saved data set, Hub id or package:...",
        "--data",
        metavar="ROWS",
        rich_help_panel=WITHOUT_YAML,
    ),
]
RowsTextOption = Annotated[
    str | None,
    described(
        "Column of the text. Default: 'text'.",
        "--text-column",
        metavar="COLUMN",
        rich_help_panel=WITHOUT_YAML,
    ),
]
RowsLabelOption = Annotated[
    str | None,
    described(
        "Column of the label. Default: 'label'.",
        "--label-column",
        metavar="COLUMN",
        rich_help_panel=WITHOUT_YAML,
    ),
]
RowsGroupOption = Annotated[
    str | None,
    described(
        "Column of groups, whose rows stay together.",
        "--group-column",
        metavar="COLUMN",
        rich_help_panel=WITHOUT_YAML,
    ),
]
RowsEncodingOption = Annotated[
    str | None,
    described(
        "Text encoding of the file. Default: utf-8.", "--encoding", rich_help_panel=WITHOUT_YAML
    ),
]
DataOption = Annotated[
    list[str] | None,
    described(
        "Set a key of the section data, which says how rows are read; repeatable.",
        "--set",
        metavar="data.KEY=VALUE",
    ),
]
SourceArgument = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="Run folder, model folder or Hub id.", show_default=False),
]
ModelsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL",
        help="Run folder, model folder or Hub id. Several models vote.",
        show_default=False,
    ),
]
TextOption = Annotated[
    str | None, described("Column of the text. Default: that of the training data, or 'text'.")
]
PairOption = Annotated[str | None, described("Column of the second text of a pair.")]
VoteOption = Annotated[
    Literal["majority", "mean"] | None,
    described("How several models decide. Default: as the run says, or majority."),
]
EncodingOption = Annotated[str | None, described("Text encoding of the file. Default: utf-8.")]
RevisionOption = Annotated[str | None, described("Branch, tag or commit of a Hub model.")]
ResumeOption = Annotated[
    Literal["auto", "never"],
    typer.Option(
        help="auto: resume an interrupted run if config and data are unchanged."
        " never: discard the interrupted run."
    ),
]
CheckOption = Annotated[
    bool, flag("Check the config, the data columns and the model; then stop.", "--check")
]
OverwriteOption = Annotated[bool, flag("Replace an existing output file.", "--overwrite")]
TrustOption = Annotated[
    bool,
    flag(
        "Run Python code that comes with the model. Set it only for sources that you trust.",
        "--trust-remote-code",
    ),
]

"""Options and arguments that several commands share."""

from typing import Annotated, Any, Literal

import typer


def described(text: str, *names: str, **more: Any) -> Any:
    """Return an option whose help text itself says what the default is."""
    return typer.Option(*names, help=text, show_default=False, **more)


ConfigOption = Annotated[str, described("YAML file of the run.", "--config")]
SetOption = Annotated[
    list[str] | None,
    described("Override a value of the config; repeatable.", "--set", metavar="SECTION.KEY=VALUE"),
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
    str, typer.Argument(help="Run folder, model folder or Hub id.", show_default=False)
]
ModelsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
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
    bool, described("Check the config, the data columns and the model; then stop.", "--check")
]
OverwriteOption = Annotated[bool, described("Replace an existing output file.", "--overwrite")]
TrustOption = Annotated[
    bool,
    described(
        "Run Python code that comes with the model. Set it only for sources that you trust.",
        "--trust-remote-code",
    ),
]

"""Commands that show something without training: audit, report, folder, cache, schema."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.options import (
    ConfigArgument,
    ConfigOption,
    RowsEncodingOption,
    RowsGroupOption,
    RowsLabelOption,
    RowsOption,
    RowsTextOption,
    SetOption,
    described,
    flag,
)
from trainer.cli.run_config import (
    config_of,
    line_of,
    naming_options,
    path_of,
    required_path,
    row_keys,
)
from trainer.config.config import json_schema, load_config
from trainer.errors import ConfigError
from trainer.launch.exits import worded_errors


@worded_errors()
def audit_command(
    config: ConfigArgument = None,
    config_option: ConfigOption = None,
    model: Annotated[
        str | None,
        described("Encoder for the label check. Default: that of the config, or term weights."),
    ] = None,
    set_: SetOption = None,
    output: Annotated[
        Path | None,
        described("Folder of the page. Default: <run folder>-audit, or audit with --data."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="Jaccard similarity from which texts are near duplicates.")
    ] = 0.8,
    max_rows: Annotated[
        int,
        typer.Option(
            help="Maximum number of rows to examine. Larger data are sampled by the seed."
        ),
    ] = 100_000,
    data: RowsOption = None,
    text_column: RowsTextOption = None,
    label_column: RowsLabelOption = None,
    group_column: RowsGroupOption = None,
    encoding: RowsEncodingOption = None,
) -> None:
    """Examine the data without training.

    It writes audit.html to read, and audit.json with the figures.

    Example: equipoise audit --data tweets.csv --label-column sentiment
    """
    from trainer.audit import audit

    path = path_of("audit", config, config_option)
    keys = {
        **row_keys(data, text_column, label_column, group_column, encoding),
        "model.name": model or ("none" if path is None else None),  # every config names a model
    }
    loaded = config_of("audit", path, keys, set_ or ())
    beside = loaded.run_path.with_name(f"{loaded.run.name}-audit")
    with naming_options(data, path):
        audit.audit(
            loaded,
            with_encoder=path is not None or model is not None,
            folder=output or (Path("audit") if path is None else beside),
            threshold=threshold,
            max_rows=max_rows,
            compare=_compare_line(path, data, label_column, set_),
        )


def _compare_line(
    path: str | None, data: str | None, label: str | None, set_: Sequence[str] | None
) -> str:
    """Return the line that compares methods on the rows of an audit."""
    from trainer.data.reading.formats.readers import run_name

    if path is not None:
        return line_of("compare", path, set_)
    init = ["equipoise", "init", data or "", *(["--label", label] if label else [])]
    return f"{shlex.join(init)} && {line_of('compare', run_name(data or '') + '.yaml')}"


@worded_errors()
def report_command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run folders.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="File of the page. Default: report.html in the run folder; for several runs,"
            " comparison.html in the current folder."
        ),
    ] = None,
    no_texts: Annotated[
        bool, flag("Quote no texts of the data, so that you can share it.", "--no-texts")
    ] = False,
) -> None:
    """Write the report of a run again, or show several runs side by side.

    For one run, missing pictures and a missing model card are also written.

    Example: equipoise report runs/tweets runs/tweets-weighted
    """
    from trainer.run_folder.finished_run import read_runs

    read = read_runs(runs)
    from trainer.delivery import completion
    from trainer.delivery.report import report_page, side_by_side

    if len(read) == 1 and output is None:
        completion.complete_and_tell(read[0].path)
    if len(read) == 1:
        page = report_page.rebuild(read[0], output, show_texts=not no_texts)
    else:
        page = side_by_side.write(read, output)
    typer.echo(f"Report: {page}")


@worded_errors()
def folder_command(
    config: ConfigArgument = None,
    config_option: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Print the path of the run folder.

    Example: ls "$(equipoise folder tweets.yaml)"
    """
    path = required_path("folder", config, config_option)
    typer.echo(load_config(path, set_ or ()).run_path)


@worded_errors()
def cache_command(
    list_: Annotated[
        bool, flag("List all entries with their size, age and origin.", "--list")
    ] = False,
    clear: Annotated[
        bool, flag("Delete the entries that no running process uses.", "--clear")
    ] = False,
    older_than: Annotated[
        str | None,
        described("Only entries that were not used for this time: 12h, 30d or 2w.", metavar="AGE"),
    ] = None,
) -> None:
    """Show or clear the cache.

    It contains rows, token ids, embeddings and completions of language models.

    Example: equipoise cache --clear --older-than 30d
    """
    from trainer.display import cache_tables
    from trainer.files import cache

    folder = cache.cache_dir()
    seconds = cache.seconds_of(older_than) if older_than is not None else 0.0
    if list_ and clear:
        raise ConfigError(
            "--list and --clear are both given. Give --list to see what --clear would delete,"
            " then --clear."
        )
    if not folder.is_dir():
        typer.echo(f"{folder}: does not exist; nothing is cached.")
    elif clear:
        cache_tables.print_cleared(folder, *cache.clear(folder, older_than=seconds))
    else:
        show = cache_tables.print_entries if list_ else cache_tables.print_kinds
        show(folder, cache.entries(folder, older_than=seconds), older_than)


@worded_errors()
def schema_command() -> None:
    """Print the JSON Schema of the YAML, for editors.

    Example: equipoise schema > schema.json
    """
    typer.echo(json.dumps(json_schema(), indent=1))

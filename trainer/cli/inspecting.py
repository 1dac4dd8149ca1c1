"""Commands that show something without training: audit, report, folder, cache, schema."""

import json
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.options import ConfigOption, SetOption, described
from trainer.config.config import json_schema, load_config
from trainer.errors import ConfigError
from trainer.launch.exits import worded_errors


@worded_errors()
def audit_command(
    config: Annotated[
        str | None, described("YAML file of a run; or use --data.", "--config")
    ] = None,
    data: Annotated[str | None, described("One data file, without a YAML file.", "--data")] = None,
    text_column: Annotated[
        str | None, described("With --data: column of the text. Default: 'text'.")
    ] = None,
    label_column: Annotated[
        str | None, described("With --data: column of the label. Default: 'label'.")
    ] = None,
    group_column: Annotated[
        str | None, described("With --data: column of groups, whose rows stay together.")
    ] = None,
    encoding: Annotated[
        str | None, described("With --data: text encoding of the file. Default: utf-8.")
    ] = None,
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
) -> None:
    """Examine the data without training; write audit.json, and audit.html to read."""
    from trainer.audit import audit

    rows = {
        "source": data,
        "text_column": text_column,
        "label_column": label_column,
        "group_column": group_column,
        "encoding": encoding,
    }
    given = {key: value for key, value in rows.items() if value is not None}
    loaded, folder = audit.asked(config, given, set_ or (), model=model, output=output)
    audit.audit(
        loaded,
        with_encoder=config is not None or model is not None,
        folder=folder,
        threshold=threshold,
        max_rows=max_rows,
    )


@worded_errors()
def report_command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="File of the page. Default: report.html in the run folder; for several runs,"
            " comparison.html in the current folder."
        ),
    ] = None,
    no_texts: Annotated[
        bool, described("Quote no texts of the data, so that you can share it.", "--no-texts")
    ] = False,
) -> None:
    """Write the report of a finished run again, or one page that shows several runs side by side.

    For one run, missing pictures and a missing model card are also written.
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
def folder_command(config: ConfigOption, set_: SetOption = None) -> None:
    """Print the path of the run folder, for use in scripts."""
    typer.echo(load_config(config, set_ or ()).run_path)


@worded_errors()
def cache_command(
    list_: Annotated[
        bool, described("List all entries with their size, age and origin.", "--list")
    ] = False,
    clear: Annotated[
        bool, described("Delete the entries that no running process uses.", "--clear")
    ] = False,
    older_than: Annotated[
        str | None,
        described("Only entries that were not used for this time: 12h, 30d or 2w.", metavar="AGE"),
    ] = None,
) -> None:
    """Show or clear the cache of rows, tokens, embeddings and completions."""
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
    """Print the JSON Schema of the YAML, for editors."""
    typer.echo(json.dumps(json_schema(), indent=1))

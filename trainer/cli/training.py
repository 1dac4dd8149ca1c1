"""Commands that train: train, compare, tune; and split, which writes the rows that train uses."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.checking import check_and_report
from trainer.cli.options import (
    CheckOption,
    ConfigArgument,
    ConfigOption,
    ResumeOption,
    RowsEncodingOption,
    RowsGroupOption,
    RowsLabelOption,
    RowsOption,
    RowsTextOption,
    SetOption,
    described,
)
from trainer.cli.run_config import (
    config_of,
    line_of,
    naming_options,
    path_of,
    required_path,
    row_keys,
    run_keys,
)
from trainer.config.config import load_config
from trainer.errors import Stopped
from trainer.launch.distributed import is_main
from trainer.launch.exits import end, worded_errors

DEFAULT_MODEL = "distilbert/distilbert-base-uncased"
"""The model of `train --data` without `--model`."""


@worded_errors()
def train_command(
    config: ConfigArgument = None,
    config_option: ConfigOption = None,
    set_: SetOption = None,
    resume: ResumeOption = "auto",
    check: CheckOption = False,
    model: Annotated[
        str | None,
        described(
            f"Pretrained model. Default: that of the config; with --data {DEFAULT_MODEL}.",
            metavar="MODEL",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        described("Run folder. Default: that of the config; with --data runs/<name of the file>."),
    ] = None,
    data: RowsOption = None,
    text_column: RowsTextOption = None,
    label_column: RowsLabelOption = None,
    group_column: RowsGroupOption = None,
    encoding: RowsEncodingOption = None,
) -> None:
    """Train and evaluate a model, and write the run folder.

    Example: equipoise train tweets.yaml --set training.num_train_epochs=3
    """
    path = path_of("train", config, config_option)
    keys = {
        **row_keys(data, text_column, label_column, group_column, encoding),
        "model.name": model or (DEFAULT_MODEL if path is None else None),
        **run_keys(output, data),
    }
    loaded = config_of("train", path, keys, set_ or ())
    from trainer.runs import row_check, run_result

    with naming_options(data, path):
        if check:
            check_and_report(path or data or "", loaded, row_check.check_with_rows)
            return
        with _marking_interruptions(loaded.run_path):
            run_result.train(loaded, resume=resume)


@worded_errors()
def compare_command(
    config: ConfigArgument = None,
    config_option: ConfigOption = None,
    set_: SetOption = None,
    resume: ResumeOption = "auto",
    check: CheckOption = False,
) -> None:
    """Train several strategies; report which one helps, and how certainly.

    All are trained under the same conditions. Any number of workers can run the command at once.

    Example: equipoise compare tweets.yaml --set compare.quick=true
    """
    path = required_path("compare", config, config_option)
    loaded = load_config(path, set_ or ())
    from trainer.comparison import compare

    with naming_options(None, path):
        if check:
            check_and_report(path, loaded, compare.check)
            return
        with _marking_interruptions(compare.folder_of(loaded)):
            compare.compare(loaded, resume=resume, command=line_of("compare", path, set_))


@worded_errors()
def tune_command(
    config: ConfigArgument = None,
    config_option: ConfigOption = None,
    set_: SetOption = None,
    resume: ResumeOption = "auto",
    check: CheckOption = False,
) -> None:
    """Search good settings with Optuna; write the config of the best trial.

    It is compared with your config on rows that the search did not see. Any number of workers can
    run the command at once.

    Example: equipoise tune tweets.yaml --set tune.trials=20
    """
    path = required_path("tune", config, config_option)
    loaded = load_config(path, set_ or ())
    from trainer.tuning import tune

    with naming_options(None, path):
        if check:
            check_and_report(path, loaded, tune.check)
            return
        with _marking_interruptions(tune.folder_of(loaded)):
            tune.tune(loaded, resume=resume, command=line_of("tune", path, set_))


@worded_errors()
def split_command(
    output: Annotated[Path, described("Folder for the files. It must not contain them yet.")],
    config: ConfigArgument = None,
    config_option: ConfigOption = None,
    set_: SetOption = None,
    file_format: Annotated[
        str, described("jsonl, parquet or csv. Default: jsonl.", "--format")
    ] = "jsonl",
) -> None:
    """Write the splits and the balanced training rows as files.

    Example: equipoise split tweets.yaml --output splits --format parquet
    """
    loaded = load_config(required_path("split", config, config_option), set_ or ())
    from trainer.data.split_files import check_output, export_splits
    from trainer.display.tables import print_audit
    from trainer.runs.preparation import prepare

    check_output(output, file_format)
    with naming_options(None, config or config_option):
        data = prepare(loaded)
    print_audit(data, {}, 0)
    for path, count in export_splits(data, loaded.data, output, file_format):
        typer.echo(f"{path}: {count:,} rows")


@contextmanager
def _marking_interruptions(run: Path) -> Iterator[None]:
    """On a stop signal, mark the run folder and exit with code 75, so that batch scripts resume.

    It listens until the end, because a signal often arrives twice: from the batch system and from
    the launcher.
    """
    from trainer.launch import stopping
    from trainer.run_folder import writer

    if is_main():
        writer.clear_stopped(run)
    with stopping.listening():
        try:
            yield
        except Stopped as stop:
            if is_main() or stop.is_alone:
                writer.mark_stopped(run, stop.reason, stop.step)
            end(str(stop), stopping.EXIT_CODE, everywhere=stop.is_alone)

"""Commands that train: train, compare; and split, which writes the rows that train would use."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.checking import check_and_report
from trainer.cli.options import CheckOption, ConfigOption, ResumeOption, SetOption, described
from trainer.config.config import load_config
from trainer.errors import Stopped
from trainer.launch.distributed import is_main
from trainer.launch.exits import end, worded_errors


@worded_errors()
def train_command(
    config: ConfigOption,
    set_: SetOption = None,
    resume: ResumeOption = "auto",
    check: CheckOption = False,
) -> None:
    """Train and evaluate a model, and write the run folder."""
    loaded = load_config(config, set_ or ())
    from trainer.runs import run_result, training_run

    if check:
        check_and_report(config, loaded, training_run.check)
        return
    with _marking_interruptions(loaded.run_path):
        run_result.train(loaded, resume=resume)


@worded_errors()
def compare_command(
    config: ConfigOption,
    set_: SetOption = None,
    resume: ResumeOption = "auto",
    check: CheckOption = False,
) -> None:
    """Train strategies under the same conditions; report which one helps, and how certainly."""
    loaded = load_config(config, set_ or ())
    from trainer.comparison import compare

    if check:
        check_and_report(config, loaded, compare.check)
        return
    options = [part for text in set_ or () for part in ("--set", text)]
    command = shlex.join(["equipoise", "compare", "--config", config, *options])
    with _marking_interruptions(compare.folder_of(loaded)):
        compare.compare(loaded, resume=resume, command=command)


@worded_errors()
def split_command(
    config: ConfigOption,
    output: Annotated[Path, described("Folder for the files. It must not contain them yet.")],
    set_: SetOption = None,
    file_format: Annotated[str, described("jsonl, parquet or csv.", "--format")] = "jsonl",
) -> None:
    """Write the splits and the balanced training rows as files for other tools."""
    loaded = load_config(config, set_ or ())
    from trainer.data.split_files import check_output, export_splits
    from trainer.display.tables import print_audit
    from trainer.runs.preparation import prepare

    check_output(output, file_format)
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

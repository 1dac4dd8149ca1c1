"""A run that is finished already: batch systems repeat jobs that they stopped at the end."""

from pathlib import Path

from trainer.config.config import Config
from trainer.data.prepared_data import PreparedData
from trainer.errors import RunError, listing
from trainer.launch import distributed
from trainer.run_folder import writer
from trainer.run_folder.finished_run import FinishedRun
from trainer.run_folder.missing_files import is_whole, lacking, refuse_lost_model


def already_finished(config: Config, data: PreparedData, resume: str) -> bool:
    """Return whether the run folder holds this run finished, and write the files it lacks.

    With `run.overwrite`, this holds only for a run without a page: its process died before it
    wrote the page, and the same command was started again.

    Raises:
        RunError: the model is missing, or a file is damaged; with `run.overwrite` such a run is
            trained again instead.
    """
    if resume == "never":
        return False
    return distributed.from_main(lambda: _is_finished(config, data.clean.fingerprint))


def _is_finished(config: Config, fingerprint: str) -> bool:
    path, overwrite = config.run_path, config.run.overwrite
    if overwrite and (path / writer.PAGE_NAME).is_file():
        return False
    if not writer.is_finished(path, config.to_dict(), fingerprint):
        return False
    try:
        written = complete(path)
    except RunError as error:
        if not overwrite:
            raise
        print(f"{error} It is trained again, since run.overwrite is true.", flush=True)
        return False
    if overwrite:
        return bool(written)
    missing = lacking(FinishedRun.read(path))
    if missing or not written:
        state = f", but lacks {listing(missing)}." if missing else ": nothing to do."
        print(
            f"{path}: holds the finished run of this config and data{state}"
            " Set run.overwrite: true to train again, or another run.name."
        )
    return True


def complete(path: Path) -> list[str]:
    """Write the pictures, the card and the page that a finished run lacks; return their names.

    Nothing is trained. A file that cannot be written is a warning.

    Raises:
        RunError: the model is missing, or a file is damaged.
    """
    from trainer.delivery import completion
    from trainer.delivery.report import report_page

    refuse_lost_model(FinishedRun.read(path))
    written: list[str] = []
    with completion.warning_of(f"{path}, pictures and card", completion.command_of(path)):
        written = completion.complete(path)
    if not is_whole(path / report_page.PAGE_NAME) and report_page.write_or_warn(path):
        written.append(report_page.PAGE_NAME)
    if written:
        print(
            f"{path}: holds the finished run of this config and data. Nothing is trained;"
            f" these missing files were written: {listing(written)}.",
            flush=True,
        )
    return written

"""Make the pictures, model card and epochs.csv of a finished run, or those that it lacks.

They are made only from the files of the run folder.
"""

import logging
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import Stopped, first_line, listing
from trainer.run_folder import writer
from trainer.run_folder.finished_run import FinishedRun
from trainer.run_folder.missing_files import is_whole, lacking

if TYPE_CHECKING:
    from trainer.evaluation.multi_label import AnyEvaluation

logger = logging.getLogger(__name__)
CARD_NAME = "README.md"
EPOCHS = "epochs.csv"


@contextmanager
def warning_of(what: Path | str, remedy: str) -> Iterator[None]:
    """Turn an error of the block into a warning that a file was not written.

    The model and its figures do not need the file, so the error must not end the run.
    """
    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        logger.warning(
            "%s: not written: %s The model and its figures do not need it; %s",
            what,
            first_line(error),
            remedy,
        )


def command_of(run: Path) -> str:
    """Return the remedy for a file of a run that can be made later."""
    return f"repeat with: {shlex.join(['equipoise', 'report', str(run)])}"


def complete(path: Path, *, overwrite: bool = False) -> list[str]:
    """Write the files that a finished run, or a member of an ensemble, lacks; return their names.

    A file that cannot be written is a warning, and so is one that only training can write.

    Args:
        overwrite: write all files, even if they exist.
    Raises:
        RunError: the folder holds no finished run, or a file of it is damaged.
    """
    run, written = FinishedRun.read(path), []
    for name, write in _makers(run).items():
        if overwrite or not is_whole(path / name):
            with warning_of(path / name, command_of(path)):
                write(name)
                written.append(name)
    source = "only training can write it"
    if run.is_ensemble:
        source = "only a new vote can write it: remove metrics.json and repeat the training command"
    for name, words in lacking(run).items():
        logger.warning("%s is missing and %s: %s.", path / name, source, words)
    if not overwrite:
        members = [member for member in run.members if member.is_dir()]
        written += [f"{member.name}/{name}" for member in members for name in complete(member)]
    return written


def complete_and_tell(path: Path) -> None:
    """Write the files that a finished run lacks, and print their names.

    Raises:
        RunError: as `complete`; or report.html is not a page of equipoise.
    """
    from trainer.delivery.report import report_page

    report_page.check_page(path / report_page.PAGE_NAME)
    if written := complete(path):
        print(f"{path}: it lacked, and now has: {listing(written)}.")


def evaluation_of(figures: dict[str, Any]) -> "AnyEvaluation":
    """Return the evaluation of a split from its part of metrics.json."""
    from trainer.evaluation.metrics import Evaluation
    from trainer.evaluation.multi_label import MultiLabelEvaluation

    kind = Evaluation if "confusion_matrix" in figures else MultiLabelEvaluation
    return kind(**{field.name: figures[field.name] for field in fields(kind)})


def _makers(run: FinishedRun) -> dict[str, Callable[[str], None]]:
    """Return {file: function that writes it} of all files that can be made from the others."""
    from trainer.data.summary import DataSummary
    from trainer.display import curves, plots
    from trainer.display.reliability_plot import reliability

    folder, facts = writer.RunFolder(run.path), {} if run.is_ensemble else run.facts or {}
    figures: dict[str, Callable[[], Any]] = {}
    if "audit" in facts:
        figures["class_distribution.png"] = lambda: plots.class_distribution(
            DataSummary.from_facts(facts["audit"])
        )
    if run.epochs:
        figures["learning_curves.png"] = lambda: curves.learning_curves(
            run.epochs, facts.get("saved_step")
        )
    result = "label_scores.png" if run.is_multi_label else "confusion_matrix.png"
    figures[result] = lambda: plots.results(evaluation_of(run.final), run.split)[1]
    if sides := facts.get("calibration"):
        titles = [f"{run.split}, {side['title']}: ECE {side['ece']:.3f}" for side in sides]
        bins = [side["bins"] for side in sides]
        figures["reliability.png"] = lambda: reliability(dict(zip(titles, bins, strict=True)))
    makers: dict[str, Callable[[str], None]] = {}
    if facts.get("epochs"):
        makers[EPOCHS] = lambda name: folder.write_epochs(facts["epochs"])
    makers |= dict.fromkeys(figures, lambda name: folder.write_figure(name, figures[name]()))
    if "card" in facts or run.is_ensemble:
        makers[CARD_NAME] = lambda name: folder.write_text(name, _card(run))
    return makers


def _card(run: FinishedRun) -> str:
    from trainer.delivery.card import card, ensemble_card

    if not run.is_ensemble:
        return card.render((run.facts or {})["card"])
    evaluations = {split: evaluation_of(run.metrics[split]) for split in run.splits}
    return ensemble_card.write_ensemble_card(
        run.config["run"]["name"],
        run.metrics["ensemble"],
        evaluations,
        {split: run.metrics[split].get("per_group", {}) for split in run.splits},
    )

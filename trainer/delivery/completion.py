"""What a finished run can do without, made of its folder alone: pictures, card and page, by training and again whenever one of them is missing."""

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
from trainer.run_folder.run_files import is_whole, lacking

if TYPE_CHECKING:
    from trainer.evaluation.multi_label import AnyEvaluation

logger = logging.getLogger(__name__)
CARD_NAME = "README.md"
EPOCHS = "epochs.csv"


@contextmanager
def warning_of(what: Path | str, remedy: str) -> Iterator[None]:
    """Turn a fault of the block into a warning that a file was not written, since it must not cost the model."""
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
    """Remedy of a file of a run that can be made later."""
    return f"repeat with: {shlex.join(['equipoise', 'report', str(run)])}"


def complete(path: Path, *, anew: bool = False) -> list[str]:
    """Write the pictures and the card that a finished run lacks, of an ensemble those of its members too; gives the names of those written.

    What cannot be written is a warning, and so is a file that only training could have written.

    Args:
        anew: write them all, whatever is there.
    Raises:
        RunError: the folder holds no finished run, or a file of it is damaged.
    """
    run, written = FinishedRun.read(path), []
    for name, write in _makers(run).items():
        if anew or not is_whole(path / name):
            with warning_of(path / name, command_of(path)):
                _write(name, write)
                written.append(name)
    for name, words in lacking(run).items():
        logger.warning("%s is missing and %s: %s.", path / name, _who_makes(run), words)
    if not anew:
        members = [member for member in run.members if member.is_dir()]
        written += [f"{member.name}/{name}" for member in members for name in complete(member)]
    return written


def _who_makes(run: FinishedRun) -> str:
    """What makes a file again that others cannot give."""
    if not run.is_ensemble:
        return "only training can write it"
    return "only a new vote can write it (remove metrics.json, then run the training command again)"


def complete_and_tell(path: Path) -> None:
    """Write the pictures and the card that a finished run lacks, and say which; refuses a page that is none of ours before anything is written."""
    from trainer.delivery.report import report_page

    report_page.check_page(path / report_page.PAGE_NAME)
    if written := complete(path):
        print(f"{path}: it lacked, and now has: {listing(written)}.")


def evaluation_of(figures: dict[str, Any]) -> "AnyEvaluation":
    """The evaluation that metrics.json holds of a split."""
    from trainer.evaluation.metrics import Evaluation
    from trainer.evaluation.multi_label import MultiLabelEvaluation

    kind = Evaluation if "confusion_matrix" in figures else MultiLabelEvaluation
    return kind(**{field.name: figures[field.name] for field in fields(kind)})


def _write(name: str, write: Callable[[str], None]) -> None:
    if not name.endswith(".png"):
        write(name)
        return
    from trainer.display.drawing import closing_figures

    with closing_figures():
        write(name)


def _makers(run: FinishedRun) -> dict[str, Callable[[str], None]]:
    """{file: function that writes it} of all that this run can have, from the files that it has."""
    folder, facts = writer.RunFolder(run.path), _facts(run)
    makers: dict[str, Callable[[str], None]] = {}
    if facts.get("epochs"):
        makers[EPOCHS] = lambda name: folder.write_epochs(facts["epochs"])
    if "audit" in facts:
        makers["class_distribution.png"] = lambda name: folder.write_figure(
            name, _plots().class_distribution(_audit(facts))
        )
    if run.epochs:
        step = facts.get("saved_step")
        makers["learning_curves.png"] = lambda name: folder.write_figure(
            name, _plots().learning_curves(run.epochs, step)
        )
    result = "label_scores.png" if run.is_multi_label else "confusion_matrix.png"
    makers[result] = lambda name: folder.write_figure(
        name, _plots().results(evaluation_of(run.final), run.split)[1]
    )
    if facts.get("calibration"):
        makers["reliability.png"] = lambda name: folder.write_figure(
            name, _reliability(facts["calibration"], run.split)
        )
    if "card" in facts or run.is_ensemble:
        makers[CARD_NAME] = lambda name: folder.write_text(name, _card(run))
    return makers


def _facts(run: FinishedRun) -> dict[str, Any]:
    """The run's own report.json; an ensemble has none, and is shown that of its first member."""
    return {} if run.is_ensemble else run.facts or {}


def _plots() -> Any:
    """The drawing library is loaded where something is drawn."""
    from trainer.display import plots

    return plots


def _audit(facts: dict[str, Any]) -> Any:
    from trainer.data.summary import DataSummary

    return DataSummary.from_facts(facts["audit"])


def _reliability(sides: list[dict[str, Any]], split: str) -> Any:
    from trainer.display.reliability_plot import reliability

    return reliability(sides, split)


def _card(run: FinishedRun) -> str:
    from trainer.delivery.card import card, ensemble_card

    if run.is_ensemble:
        evaluations = {split: evaluation_of(run.metrics[split]) for split in run.splits}
        return ensemble_card.write_ensemble_card(
            run.config["run"]["name"], run.metrics["ensemble"], evaluations
        )
    return card.render(_facts(run)["card"])

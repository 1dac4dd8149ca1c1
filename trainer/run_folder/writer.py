"""Write the files of a run folder, and start or resume a run there.

metrics.json is written last: a folder without it holds an unfinished run. Checkpoints are deleted
after it, and pictures, model card and page are written after that.
"""

import csv
import io
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.yaml_source import dump_yaml
from trainer.errors import RunError
from trainer.evaluation.confusion import MOST_DENSE
from trainer.files import durable
from trainer.files.locks import locked, remove_dead
from trainer.run_folder import prediction_file
from trainer.run_folder.config_differences import config_differences, first_differences
from trainer.training.memory import FILE as PASSES
from trainer.training.resuming.checkpoints import newest_whole, set_aside, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trainer.evaluation.outcome import Outcome

STOPPED = "stopped.json"
"""Marks a run that a signal interrupted. Batch scripts that find it repeat the command."""
PAGE_NAME = "report.html"
PUSHED = "pushed.json"
"""Records what was pushed to the Hub, so that the same command does not push it again."""
FILES = (
    STOPPED,
    "config.yaml",
    "environment.json",
    "splits.json",
    "dropped.jsonl",
    "synthetic.jsonl",
    "class_weights.json",
    "class_distribution.png",
    "epochs.csv",
    "learning_curves.png",
    "confusion_matrix.png",
    "reliability.png",
    "label_scores.png",
    "predictions.parquet",
    "predictions.npy",
    "mistakes.jsonl",
    "report.json",
    PAGE_NAME,
    "README.md",
    PUSHED,
    "metrics.json",
)
STAGED = "upload.partial"
"""Folder of models of checkpoints that are being pushed, or wait to be pushed."""
LOGS = "logs"  # of trackers; members of an ensemble and trainings of a comparison share it
FOLDERS = ("model", "model.partial", "adapter", "adapter.partial", STAGED)
LOCK = ".lock"
"""File that the main process of a training locks. The lock ends with the process."""
MEMBER = re.compile(r"member-\d+")  # names of the run folders of an ensemble's members


class RunFolder:
    """The folder `<output_dir>/<name>/`, into which a run writes its files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints, which a finished run no longer has."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """Folder of the trained model and its tokenizer."""
        return self.path / "model"

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, which appears complete or not at all."""
        with durable.aside(self.path / name) as partial:
            partial.write_text(text, encoding="utf-8")

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file; raise ValueError if a number is not finite."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        self.write_text(name, f"{text}\n")

    def write_lines(self, name: str, records: Iterable[dict[str, Any]]) -> None:
        """Write a file with one JSON object per line."""
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        with durable.aside(self.path / name) as partial, partial.open("w", encoding="utf-8") as out:
            out.writelines(lines)

    def write_figure(self, name: str, figure: "Figure") -> None:
        """Write a figure as a PNG file."""
        with durable.aside(self.path / name) as partial:
            figure.savefig(partial, format="png", dpi=150, bbox_inches="tight")

    def write_epochs(self, rows: list[dict[str, float]]) -> None:
        """Write epochs.csv, in place of the file of the epoch before."""
        out = io.StringIO()
        if rows:
            writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        self.write_text("epochs.csv", out.getvalue())

    def write_splits(self, named: dict[str, Any]) -> None:
        """Write the row ids of each split."""
        with (
            durable.aside(self.path / "splits.json") as partial,
            partial.open("w", encoding="utf-8") as file,
        ):
            for name, ids in named.items():
                file.write(f"{', ' if file.tell() else '{'}{json.dumps(name)}: [")
                # in blocks, since 10 million Python integers take 400 MB
                for start in range(0, len(ids), 1_000_000):
                    block = json.dumps(ids[start : start + 1_000_000].tolist())[1:-1]
                    file.write((", " if start else "") + block)
                file.write("]")
            file.write("}\n")

    def write_predictions(
        self,
        parts: "dict[str, tuple[Any, Outcome]]",
        labels: list[str],
        name: str = "predictions.parquet",
        *,
        keep_all: bool = False,
    ) -> None:
        """Write predictions.parquet.

        Args:
            parts: {split: (row ids, results on these rows)}.
            keep_all: if predictions.parquet holds only the largest probabilities, write a second
                file with all of them.
        """
        whole = prediction_file.whole_path(self.path, name)
        with ExitStack() as files:
            partial = files.enter_context(durable.aside(self.path / name))
            keeps_whole = keep_all and len(labels) > MOST_DENSE
            partial_whole = files.enter_context(durable.aside(whole)) if keeps_whole else None
            prediction_file.write(partial, parts, labels, whole=partial_whole)

    def publish_model(self) -> None:
        """Rename the saved model, and its adapter if there is one, once they are on the disk.

        The pickled training arguments are deleted: a published folder holds only safetensors.
        """
        (self.path / "model.partial/training_args.bin").unlink(missing_ok=True)
        for name in ("model", "adapter"):
            partial = self.path / f"{name}.partial"
            if partial.is_dir():
                durable.sync_tree(partial)
                shutil.rmtree(self.path / name, ignore_errors=True)
                durable.replace(partial, self.path / name)

    def stage_model(self, files: Iterable[Path], step: int) -> Path:
        """Return a folder with the files of a checkpoint's model, which outlives the checkpoint.

        The files are hard links; they are copied where the file system has no hard links.
        """
        staged = self.path / STAGED / str(step)
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        for file in files:
            try:
                os.link(file, staged / file.name)
            except OSError:
                shutil.copy(file, staged / file.name)
        return staged

    def drop_staged(self) -> None:
        """Remove the folders that `stage_model` made."""
        shutil.rmtree(self.path / STAGED, ignore_errors=True)

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write metrics.json, which marks the run as finished, then delete the checkpoints."""
        self.write_json("metrics.json", metrics)
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def check_writable(path: Path, remedy: str = "Set run.output_dir") -> None:
    """Raise RunError if the run folder cannot be written. The folder is not created."""
    parent = path
    while not parent.exists():
        parent = parent.parent
    try:
        if not parent.is_dir():
            raise NotADirectoryError(20, "Not a directory")
        with tempfile.NamedTemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror} at {parent})."
            f" {remedy} to a folder you may write."
        ) from error


@contextmanager
def only_run(path: Path) -> Iterator[None]:
    """Lock the run folder against a second training while the block runs.

    Raises:
        RunError: another training has locked it. The message names its process id and host.
    """
    made = [path, *(folder for folder in path.parents if not folder.exists())]
    path.mkdir(parents=True, exist_ok=True)
    for folder in made:
        durable.sync(folder.parent)
    remedy = "Wait for it or end it, or set another run.name."
    with locked(path / LOCK, "a run is being trained here", refuse=remedy):
        try:
            yield
        finally:
            (path / LOCK).unlink(missing_ok=True)
            with suppress(OSError):
                for folder in made:
                    folder.rmdir()  # fails if a run was started


def plan_run(
    path: Path, config: dict[str, Any], fingerprint: str, *, overwrite: bool, resume: str
) -> str | None:
    """Return the checkpoint to resume from, or None to start from the beginning.

    Only incomplete checkpoints are changed: they are renamed.

    Args:
        config: the resolved config as plain values.
        fingerprint: digest of the cleaned rows.
        overwrite: replace an existing run; one that can be resumed is resumed nevertheless.
        resume: 'auto', or 'never' to discard an unfinished run.
    Raises:
        RunError: the folder holds a finished run, one that differs, or files that are not a run.
    """
    if not path.is_dir() or all(
        p.name.endswith(".partial") or p.name in (STOPPED, LOCK) or MEMBER.fullmatch(p.name)
        for p in path.iterdir()
    ):
        return None
    if not (path / "config.yaml").is_file():
        raise RunError(
            f"{path}: holds files but no run. Set run.name or run.output_dir to another folder."
        )
    difference = first_differences(path, config, fingerprint)
    if (path / "metrics.json").is_file():
        if overwrite:
            return None
        words = f"and it differs: {difference}" if difference else "of the same config and data"
        remedy = "Set run.overwrite: true to train again, or another run.name."
        raise RunError(f"{path}: holds a finished run, {words}. {remedy}")
    if resume == "never":
        return None
    if not difference:
        tidy(path / "checkpoints")
        checkpoint = newest_whole(path / "checkpoints")
        if checkpoint is None and (path / "model").is_dir():
            warnings.warn(
                f"{path}: holds a model, but neither metrics.json nor a checkpoint."
                " The run is unfinished and is trained again.",
                stacklevel=2,
            )
        for warning in set_aside(path / "checkpoints", checkpoint):
            warnings.warn(warning, stacklevel=2)
        return str(checkpoint) if checkpoint else None
    if overwrite:
        return None
    remedy = "Set run.overwrite: true or --resume never to start again, or another run.name."
    raise RunError(f"{path}: holds an unfinished run that differs: {difference}. {remedy}")


def is_finished(path: Path, config: dict[str, Any], fingerprint: str) -> bool:
    """Return whether the folder holds a finished run of this config and these rows.

    If it does, temporary files that an interruption left there are removed.
    """
    is_there = all((path / name).is_file() for name in ("metrics.json", "config.yaml"))
    if not is_there or first_differences(path, config, fingerprint):
        return False
    if (path / "checkpoints").is_dir():
        if (path / "model").is_dir():
            durable.sync_tree(path / "model")
        durable.sync(path / "metrics.json")
        durable.sync(path)
        shutil.rmtree(path / "checkpoints", ignore_errors=True)
    for name in FOLDERS:
        if name.endswith(".partial"):
            shutil.rmtree(path / name, ignore_errors=True)
    remove_dead(path, ".*.*.partial")
    return True


def remove_members(path: Path, *, above: int) -> None:
    """Remove the members of an ensemble whose number is larger than `above`."""
    for member in path.glob("member-*"):
        if MEMBER.fullmatch(member.name) and int(member.name.removeprefix("member-")) > above:
            shutil.rmtree(member)


def start_run(path: Path, config: dict[str, Any], *, keep_logs: bool = False) -> None:
    """Remove an earlier run, and its logs unless they are kept; write the config of the new one."""
    same_config = (path / "config.yaml").is_file() and not config_differences(path, config)
    _remove_run(path, keep_passes=same_config)
    if not keep_logs:
        shutil.rmtree(path / LOGS, ignore_errors=True)
    path.mkdir(parents=True, exist_ok=True)
    RunFolder(path).write_text("config.yaml", dump_yaml(config))
    (path / "checkpoints").mkdir(exist_ok=True)


def mark_stopped(path: Path, reason: str, step: int | None) -> None:
    """Write the marker of an interrupted run; several processes may write it together."""
    path.mkdir(parents=True, exist_ok=True)
    RunFolder(path).write_json(STOPPED, {"reason": reason, "step": step})


def clear_stopped(path: Path) -> None:
    """Remove the marker of an interrupted run."""
    if path.is_dir():
        (path / STOPPED).unlink(missing_ok=True)


def _remove_run(path: Path, *, keep_passes: bool) -> None:
    """Remove the files of a run except its config.yaml.

    metrics.json goes first: if the removal is interrupted, the folder holds an unfinished run.
    """
    (path / "metrics.json").unlink(missing_ok=True)
    for left in (path / "checkpoints").glob("*"):
        if left.name.startswith("corrupt-") or (keep_passes and left.name == PASSES):
            continue  # kept until the run is finished
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    for name in FOLDERS:
        shutil.rmtree(path / name, ignore_errors=True)
    for name in FILES:
        if name != "config.yaml":
            (path / name).unlink(missing_ok=True)
    remove_dead(path, ".*.*.partial")

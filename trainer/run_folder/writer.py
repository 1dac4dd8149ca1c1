"""The run folder: opening, resuming and writing it; the only module that writes there.

The model, the predictions and then metrics.json are on the disk before the checkpoints go; pictures, card and page follow.
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

from trainer.config.yaml_source import dump_yaml, read_yaml
from trainer.errors import RunError
from trainer.files import durable
from trainer.files.locks import locked, remove_dead
from trainer.training.memory import FILE as PASSES
from trainer.training.resuming.checkpoints import newest_whole, set_aside, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trainer.evaluation.outcome import Outcome

STOPPED = "stopped.json"
"""Marker of a run that a signal ended: batch scripts start the same command again where they find it."""
PAGE_NAME = "report.html"
PUSHED = "pushed.json"
"""What was pushed to the Hub, and where: a push that is done is not done again by the same command."""
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
"""Models of checkpoints that are being pushed, or wait for it."""
FOLDERS = ("model", "model.partial", "adapter", "adapter.partial", STAGED)
LOCK = ".lock"
"""Held by the main process of the run that is being trained; the kernel takes it from one that dies."""
MEMBER = re.compile(r"member-\d+")
"""Folders of the members of an ensemble, run folders of their own."""
NOT_COMPARED = {
    "run.overwrite",
    "run.output_dir",
    "run.num_processes",
    "run.timeout_minutes",
    "speed.tokens_per_pass",
    "speed.halve_on_out_of_memory",
}
NOT_COMPARED |= {"report.show_texts", "report.comparison"}


class RunFolder:
    """`<output_dir>/<name>/`; a folder without metrics.json is unfinished."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints; gone when the run is finished."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """Folder of the trained model and its tokenizer."""
        return self.path / "model"

    def write_text(self, name: str, text: str) -> None:
        """Write a file that appears whole or not at all."""
        with durable.aside(self.path / name) as partial:
            partial.write_text(text, encoding="utf-8")

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON; numbers that are not finite are refused."""
        self.write_text(
            name, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        )

    def write_lines(self, name: str, records: Iterable[dict[str, Any]]) -> None:
        """Write one JSON object a line."""
        with (
            durable.aside(self.path / name) as partial,
            partial.open("w", encoding="utf-8") as file,
        ):
            for record in records:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def write_figure(self, name: str, figure: "Figure") -> None:
        """Write a PNG and close the figure."""
        from matplotlib import pyplot as plt

        try:
            with durable.aside(self.path / name) as partial:
                figure.savefig(partial, format="png", dpi=150, bbox_inches="tight")
        finally:
            plt.close(figure)

    def write_epochs(self, rows: list[dict[str, float]]) -> None:
        """Write epochs.csv, at the end of each epoch anew."""
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
            for (
                name,
                ids,
            ) in (
                named.items()
            ):  # a million ids at a time: as Python's numbers 10 million take 400 MB
                file.write(f"{', ' if file.tell() else '{'}{json.dumps(name)}: [")
                for start in range(0, len(ids), 1_000_000):
                    file.write(
                        (", " if start else "")
                        + json.dumps(ids[start : start + 1_000_000].tolist())[1:-1]
                    )
                file.write("]")
            file.write("}\n")

    def write_predictions(
        self,
        parts: dict[str, tuple[Any, "Outcome"]],
        labels: list[str],
        name: str = "predictions.parquet",
        *,
        keep_all: bool = False,
    ) -> None:
        """Write the predictions of some splits.

        Args:
            parts: {split: (row ids, what the model did on them)}.
            keep_all: where predictions.parquet holds only the largest probabilities, write a file of all beside it.
        """
        from trainer.evaluation.confusion import MOST_DENSE
        from trainer.run_folder import prediction_file

        whole = prediction_file.whole_path(self.path, name)
        with ExitStack() as files:
            partial = files.enter_context(durable.aside(self.path / name))
            keeps_whole = keep_all and len(labels) > MOST_DENSE
            partial_whole = files.enter_context(durable.aside(whole)) if keeps_whole else None
            prediction_file.write(partial, parts, labels, whole=partial_whole)

    def publish_model(self) -> None:
        """Give the saved model, and its adapter if it has one, their names when they are on the disk.

        Pickled training arguments are left out, so they hold safetensors alone.
        """
        (self.path / "model.partial/training_args.bin").unlink(missing_ok=True)
        for name in ("model", "adapter"):
            partial = self.path / f"{name}.partial"
            if partial.is_dir():
                durable.sync_tree(partial)
                shutil.rmtree(self.path / name, ignore_errors=True)
                durable.replace(partial, self.path / name)

    def stage_model(self, files: Iterable[Path], step: int) -> Path:
        """A folder with the files of a checkpoint's model that outlives the checkpoint; hard links, so that nothing is copied where links are known."""
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
        """Remove what `stage_model` made."""
        shutil.rmtree(self.path / STAGED, ignore_errors=True)

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write metrics.json, which makes the run finished; when it and the model are on the disk, drop the checkpoints."""
        self.write_json("metrics.json", metrics)
        shutil.rmtree(self.checkpoints, ignore_errors=True)


def check_writable(path: Path, remedy: str = "Set run.output_dir") -> None:
    """Raises RunError when the run folder could not be written, without creating it."""
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
            f"{path}: cannot be written ({error.strerror} at {parent}). {remedy} to a folder you may write."
        ) from error


@contextmanager
def only_run(path: Path) -> Iterator[None]:
    """Keep a second training off the run folder while the block runs.

    Raises:
        RunError: another training holds the folder; with its process id and host.
    """
    made = [path, *(folder for folder in path.parents if not folder.exists())]
    path.mkdir(parents=True, exist_ok=True)
    for folder in made:
        durable.sync(folder.parent)
    with locked(
        path / LOCK,
        "a run is being trained here",
        refuse="Wait for it or end it, or set another run.name.",
    ):
        try:
            yield
        finally:
            (path / LOCK).unlink(missing_ok=True)
            with suppress(OSError):
                for folder in made:
                    folder.rmdir()  # unless a run was started


def plan_run(
    path: Path, config: dict[str, Any], fingerprint: str, *, overwrite: bool, resume: str
) -> str | None:
    """The checkpoint to resume from, or None to start at the beginning; touches nothing but checkpoints that are not whole, which it sets aside.

    Args:
        config: the resolved config as plain values.
        fingerprint: digest of the cleaned rows.
        overwrite: replace a run that is there; an unfinished one of the same config and data is resumed all the same.
        resume: 'auto', or 'never' to discard an unfinished run.
    Raises:
        RunError: a finished run, an unfinished one of another config or data, or files that are no run.
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
        text = f"and it differs: {difference}" if difference else "of the same config and data"
        raise RunError(
            f"{path}: holds a finished run, {text}. Set run.overwrite: true to train anew, or another run.name."
        )
    if resume == "never":
        return None
    if not difference:
        tidy(path / "checkpoints")
        checkpoint = newest_whole(path / "checkpoints")
        if checkpoint is None and (path / "model").is_dir():
            words = "holds a model, but neither metrics.json nor a checkpoint, so it counts as unfinished"
            warnings.warn(f"{path}: {words} and is trained anew.", stacklevel=2)
        for warning in set_aside(path / "checkpoints", checkpoint):
            warnings.warn(warning, stacklevel=2)
        return str(checkpoint) if checkpoint else None
    if overwrite:
        return None
    remedy = "Set run.overwrite: true or --resume never to start anew, or another run.name."
    raise RunError(f"{path}: holds an unfinished run that differs: {difference}. {remedy}")


def is_finished(path: Path, config: dict[str, Any], fingerprint: str) -> bool:
    """Whether a finished run of this config and these rows lies there; what a kill at its end left beside it is removed."""
    if (
        not (path / "metrics.json").is_file()
        or not (path / "config.yaml").is_file()
        or first_differences(path, config, fingerprint)
    ):
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
    """Remove the members of an ensemble with larger numbers: all of one that is trained anew, else those that a smaller one lacks."""
    for member in path.glob("member-*"):
        if MEMBER.fullmatch(member.name) and int(member.name.removeprefix("member-")) > above:
            shutil.rmtree(member)


def start_run(path: Path, config: dict[str, Any]) -> None:
    """An empty run folder with the config, in place of what a run before left there."""
    same_config = (path / "config.yaml").is_file() and not _differences(path, config)
    _remove_run(path, keep_passes=same_config)
    path.mkdir(parents=True, exist_ok=True)
    RunFolder(path).write_text("config.yaml", dump_yaml(config))
    (path / "checkpoints").mkdir(exist_ok=True)


def mark_stopped(path: Path, reason: str, step: int | None) -> None:
    """Write the marker of a run that can go on."""
    path.mkdir(parents=True, exist_ok=True)
    RunFolder(path).write_json(
        STOPPED, {"reason": reason, "step": step}
    )  # processes that run out of memory together all write it


def clear_stopped(path: Path) -> None:
    """Remove the marker of a run that goes on."""
    if path.is_dir():
        (path / STOPPED).unlink(missing_ok=True)


def _remove_run(path: Path, *, keep_passes: bool) -> None:
    """Remove what a run wrote but its config.yaml, and nothing else; in an order in which what a kill leaves is an unfinished run."""
    (path / "metrics.json").unlink(missing_ok=True)
    for left in (path / "checkpoints").glob("*"):
        if not left.name.startswith("corrupt-") and not (
            keep_passes and left.name == PASSES
        ):  # those stay until the run is finished
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    for name in FOLDERS:
        shutil.rmtree(path / name, ignore_errors=True)
    for name in FILES:
        if name != "config.yaml":
            (path / name).unlink(missing_ok=True)
    remove_dead(path, ".*.*.partial")


def _differences(path: Path, config: dict[str, Any]) -> list[str]:
    """Differences between a run folder's config and ours, in words."""
    saved = flat(read_yaml(str(path / "config.yaml")).values)
    ours = flat(config)
    keys = [
        key
        for key in sorted(saved.keys() | ours.keys())
        if saved.get(key) != ours.get(key) and not is_not_compared(key)
    ]
    return [f"{key} is {saved.get(key)} there, {ours.get(key)} here" for key in keys]


def is_not_compared(key: str) -> bool:
    """Whether results do not depend on a config key."""
    return key in NOT_COMPARED or key.startswith(("hub.", "compare."))


def first_differences(path: Path, config: dict[str, Any], fingerprint: str) -> str:
    """The first differences between a run folder's config and data and ours, in words; empty where they agree."""
    words = _differences(path, config)
    try:
        found = json.loads((path / "environment.json").read_text(encoding="utf-8"))["data"][
            "fingerprint"
        ]
    except (OSError, ValueError, KeyError):
        found = fingerprint  # killed before anything was trained
    if found != fingerprint:
        words.append("the rows of the data differ")
    return "; ".join(words[:5]) + (f"; and {len(words) - 5} more" if len(words) > 5 else "")


def flat(values: Any, key: str = "") -> dict[str, Any]:
    """{'section.key': value} of a config, or of any tree of dicts."""
    if isinstance(values, dict) and values:
        return {
            k: v
            for name, value in values.items()
            for k, v in flat(value, f"{key}.{name}" if key else str(name)).items()
        }
    return {key: values}

"""Find files that a finished run lacks, and say what it cannot do without them."""

import json
from pathlib import Path

from trainer.errors import RunError
from trainer.run_folder.finished_run import FinishedRun

ENDS = {".png": b"IEND\xaeB`\x82", ".html": b"</html>", ".parquet": b"PAR1"}
"""Last bytes of complete files: a file without them was cut off."""
INDEX = "model.safetensors.index.json"
"""Names the files of weights that are split into several files."""
ONLY_TRAINING_MAKES = {
    "predictions.parquet": "the page has no intervals, curves and mistakes",
    "report.json": "the page has no class distribution, and a missing card cannot be written",
    "mistakes.jsonl": "the page quotes no texts",
    "epochs.csv": "the page has no learning curves",
    "environment.json": "versions are unknown, and so is whether the data are still the same",
    "class_weights.json": "the page has no class weights",
    "splits.json": "the rows of each split are not known",
    "dropped.jsonl": "the rows that cleaning dropped are not known",
    "synthetic.jsonl": "the synthetic rows are not known",
    "adapter": "there is no adapter beside the merged model",
}
"""Files that only training can write, and what is missing without them."""
MADE_OF = {
    "class_distribution.png": "report.json",
    "reliability.png": "report.json",
    "README.md": "report.json",
    "learning_curves.png": "epochs.csv",
}
"""Files that cannot be made without another file."""
OF_ENSEMBLE = ("predictions.parquet", "mistakes.jsonl", "environment.json")
"""Files that an ensemble has itself; the others belong to its members."""


def is_whole(path: Path) -> bool:
    """Return whether a file exists, is not empty and, if its type shows it, was not cut off."""
    if not path.is_file() or not (size := path.stat().st_size):
        return False
    if path.suffix not in ENDS:
        return True
    with path.open("rb") as file:
        file.seek(max(0, size - 64))
        return ENDS[path.suffix] in file.read()


def missing_of_model(run: Path) -> Path | None:
    """Return the file that the model folder of a run lacks, or the folder; None if complete."""
    model = run / "model"
    index = model / INDEX
    if not model.is_dir():
        return model
    weights = {"model.safetensors"}
    if index.is_file():
        try:
            weights = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError):
            return index
    needed = (model / name for name in ("config.json", *sorted(weights)))
    return next((path for path in needed if not is_whole(path)), None)


def refuse_lost_model(run: FinishedRun) -> None:
    """Raise RunError if the model of a finished run, or of a member of an ensemble, is missing."""
    for path in run.members or [run.path]:
        if missing := missing_of_model(path):
            raise RunError(
                f"{run.path}: holds a finished run (metrics.json), but {missing} is missing or"
                " empty. Restore it from a copy, or set run.overwrite: true to train again."
            )


def lacking(run: FinishedRun) -> dict[str, str]:
    """Return {file: what is missing without it} of missing files that cannot be made again."""
    wanted = dict(ONLY_TRAINING_MAKES)
    if run.is_ensemble:
        wanted = {name: wanted[name] for name in OF_ENSEMBLE}
    if not (run.config.get("report") or {}).get("show_texts", True):
        del wanted["mistakes.jsonl"]
    if "augment" not in run.metrics:
        wanted.pop("synthetic.jsonl", None)
    if (run.config.get("model") or {}).get("mode") != "lora":
        wanted.pop("adapter", None)
    if run.facts and "epochs" in run.facts:
        wanted.pop("epochs.csv", None)
    found = {name: words for name, words in wanted.items() if not _is_there(run.path / name)}
    for name, source in MADE_OF.items():
        if (
            source in found
            and (
                name != "reliability.png" or ("decision" in run.metrics and not run.is_multi_label)
            )
            and not is_whole(run.path / name)
        ):
            found[name] = f"it is made from {source}"
    if not run.is_ensemble and (missing := missing_of_model(run.path)):
        words = "predict, serve, export and push cannot use the run"
        found[str(missing.relative_to(run.path))] = words
    return found


def _is_there(path: Path) -> bool:
    """Return whether a file exists and is complete; CSV and JSON lines may be empty."""
    return path.exists() if path.suffix in (".jsonl", ".csv", "") else is_whole(path)

"""Which files of a run folder or a model folder are pushed to the Hub."""

import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

from trainer.errors import RunError
from trainer.files.links import target_outside

CARD = "README.md"
PICTURES = (
    "class_distribution.png",
    "learning_curves.png",
    "confusion_matrix.png",
    "label_scores.png",
    "reliability.png",
)
SHARED = ("metrics.json", "epochs.csv", "class_weights.json", *PICTURES)
"""Files of a run that are pushed beside model and card. They hold no rows of the data."""
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
MODEL_FILES: tuple[str, ...] = (
    *WEIGHTS,
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*.json",
    "vocab*.txt",
    "merges.txt",
    "*.model",
    "*.codes",
    "chat_template*",
)
"""Files of a model folder that are pushed: no pickle, and no file that might hold data."""
LOADING = re.compile(
    r'^(classif(?:y = pipeline\("text-classification", |ier = Classifier\.load\())"model"',
    re.MULTILINE,
)
"""The lines of `card_template.md` that load the model from the folder beside the card."""


def files_to_push(folder: Path) -> dict[str, Path]:
    """Return {name on the Hub: file} for a run folder or a model folder."""
    is_run = (folder / "model").is_dir()
    found = {path.name: path for path in model_files(folder / "model" if is_run else folder)}
    others = (*SHARED, CARD) if is_run else (CARD,)
    return found | {name: folder / name for name in others if (folder / name).is_file()}


def model_files(folder: Path) -> list[Path]:
    """Return the files of a model: weights, configs, tokenizer, and code if the config names it."""
    config, patterns = folder / "config.json", MODEL_FILES
    if config.is_file() and '"auto_map"' in config.read_text(encoding="utf-8"):
        patterns = (*MODEL_FILES, "*.py")
    return sorted(
        path
        for path in folder.iterdir()
        if (path.is_file() or _is_broken_link(path)) and _matches(path.name, patterns)
    )


def weights_among(names: list[str]) -> set[str]:
    """Return the names of weights at the top of a repository."""
    return {name for name in names if "/" not in name and _matches(name, WEIGHTS)}


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def card_for_hub(text: str, repo_id: str, revision: str | None) -> str:
    """Return the card with code that loads the model from the repository, not from the folder."""
    source = f'"{repo_id}"' + (f', revision="{revision}"' if revision else "")
    return LOADING.sub(lambda match: match[1] + source, text)


def refuse_folder(folder: Path) -> None:
    """Raise RunError for a folder without a finished run or model, or with links out of it."""
    if not folder.is_dir():
        raise RunError(f"{folder}: is not a folder. Give the folder of a finished run.")
    if any(folder.glob("member-*")):
        raise RunError(
            f"{folder}: holds an ensemble, and a repository holds one model."
            f" Push a member, such as {folder / 'member-1'}."
        )
    if (folder / "config.yaml").is_file() and not (folder / "metrics.json").is_file():
        raise RunError(
            f"{folder}: holds a run that is not finished. Run its train command again, which"
            " resumes from the last checkpoint."
        )
    model = folder / "model" if (folder / "model").is_dir() else folder
    if not (model / "config.json").is_file() or not any(model.glob("*.safetensors")):
        raise RunError(
            f"{folder}: holds no finished run and no model (config.json and safetensors weights)."
            " Give the folder of a finished run."
        )
    for path in (*model_files(model), *(folder / name for name in (*SHARED, CARD))):
        _refuse_link(path, folder)


def _refuse_link(path: Path, folder: Path) -> None:
    """Raise RunError for a broken link, or one out of the folder, for example to a private key."""
    if _is_broken_link(path):
        raise RunError(
            f"{path}: is a link to {os.readlink(path)}, which does not exist."
            " Remove the link, or put the file there."
        )
    target = target_outside(path, folder)
    if target is not None:
        link = next(p for p in (path, *path.parents) if p.is_symlink())
        raise RunError(
            f"{link}: is a link to {target}, outside {folder}, so nothing is pushed."
            " Remove the link, or put a copy of the file there."
        )


def _is_broken_link(path: Path) -> bool:
    return path.is_symlink() and not path.exists()

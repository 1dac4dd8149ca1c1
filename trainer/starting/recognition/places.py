"""The files of a place: one file, or a folder with a file for each split."""

from pathlib import Path

from trainer.data.reading.formats.compression import ending
from trainer.data.reading.formats.readers import ENDINGS, READERS
from trainer.data.reading.locate import locate
from trainer.data.reading.split_column import split_named
from trainer.errors import DataError, listing
from trainer.starting.recognition.column_words import words_of


def sources_of(location: str) -> dict[str, str]:
    """Return {key of the section `data`: location} for a file, a glob, a package path or a folder.

    A folder has one file for each split, named like it: train.csv, emotion-test.jsonl.

    Raises:
        DataError: nothing is there, or it is a Hub id or a folder without such files.
    """
    paths = locate(location, "init", ENDINGS)
    if paths is None:
        raise DataError(
            f"init: '{location}' is no file here. Give the path of a file. For a data set on the"
            " Hub, write an example (equipoise init --example emotion) and set data.train in it."
        )
    if len(paths) > 1 or not paths[0].is_dir():
        return {"source": location}
    return _splits_of(paths[0])


def _splits_of(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_read(path)]
    if len(files) == 1:
        return {"source": str(files[0])}
    found: dict[str, str] = {}
    for path in files:
        splits = {split_named(word) for word in words_of(path.name.partition(".")[0])} - {None}
        for split in splits:
            if split in found:
                raise DataError(
                    f"{folder}: {Path(found[split]).name} and {path.name} are both named"
                    f" {split}. Move one of them, or give one file."
                )
            found[str(split)] = str(path)
    if "train" in found and len(found) > 1:
        return {key: found[key] for key in ("train", "validation", "test") if key in found}
    names = listing(path.name for path in folder.iterdir()) or "nothing"
    raise DataError(
        f"{folder}: is a folder without files named train and test; found: {names}. Tried the"
        f" endings {listing(READERS)}. Give one file, or name the files train, validation and test."
    )


def _is_read(path: Path) -> bool:
    return ending(path) in READERS and not path.name.startswith(".")

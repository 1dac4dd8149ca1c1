"""Read data sets of the `datasets` library, saved or on the Hub, as Arrow tables."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from trainer.config.sections.data import DataSection
from trainer.data.reading.column_checks import check_columns
from trainer.data.reading.locate import hub_remedy
from trainer.data.reading.row_places import BATCH_ROWS
from trainer.errors import DataError, first_line, listing


def dataset_tables(
    dataset: Any, where: str, wanted: list[str], data: DataSection
) -> Iterator[pa.Table]:
    """Yield the wanted columns of a data set, BATCH_ROWS rows at a time; none wanted means all."""
    # A streamed CSV file has no column names before its first rows are read.
    if wanted and dataset.column_names:
        check_columns(where, wanted, dataset.column_names, data)
        dataset = dataset.select_columns(wanted)
    metadata = dataset.features.arrow_schema.metadata if dataset.features else None
    for table in dataset.with_format("arrow").iter(batch_size=BATCH_ROWS):
        check_columns(where, wanted, table.column_names, data)
        yield table.replace_schema_metadata(metadata)


def _split_of(name: str, data: DataSection) -> str:
    return data.split_names.get(name, "train" if name == "source" else name)  # type: ignore[call-overload, no-any-return]


def load_saved(path: Path, name: str, data: DataSection) -> Any:
    """Return the split of a folder that `datasets` saved."""
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(path))
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: is a folder, but not one that `datasets` saved. For files in it give a glob "
            f"such as {path}/*.csv."
        ) from error
    if isinstance(loaded, DatasetDict):
        split = _split_of(name, data)
        if split not in loaded:
            raise DataError(
                f"{path}: no split '{split}'; found: {listing(loaded)}. Set data.split_names."
            )
        return loaded[split]
    return loaded


def load_hub(location: str, name: str, data: DataSection) -> Any:
    """Return the split of a Hub data set; with `data.streaming` nothing is stored on disk."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        return load_dataset(
            location,
            data.subset,
            split=_split_of(name, data),
            revision=hub_commit(location, data) or data.revision,
            streaming=data.streaming,
        )
    except (DatasetsError, ValueError, OSError) as error:
        raise _not_found(location, name, "loaded from", error) from error


def hub_identity(location: str, name: str, data: DataSection) -> str:
    """Return a text that differs between two states of a Hub data set."""
    if not data.streaming:
        return str(load_hub(location, name, data)._fingerprint)
    commit = _commit(location, data.revision)
    if isinstance(commit, Exception):
        raise _not_found(location, name, "found on", commit) from commit
    return f"{location} {commit}"


def _not_found(location: str, name: str, verb: str, error: Exception) -> DataError:
    return DataError(
        f"data.{name}: '{location}' is not a file here and could not be {verb} the Hub: "
        f"{first_line(error)} {hub_remedy()}"
    )


def hub_commit(location: str, data: DataSection) -> str | None:
    """Return the commit that this process reads of a Hub data set.

    None means that the Hub cannot be asked, and that `datasets` uses its cache.
    """
    commit = _commit(location, data.revision)
    return commit if isinstance(commit, str) else None


@cache
def _commit(location: str, revision: str | None) -> str | Exception:
    """Return the commit of a branch, or the reason why it is not known.

    The Hub is asked once, so that the second reading of a stream finds no newer commit.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        return str(HfApi().dataset_info(location, revision=revision, timeout=10).sha)
    except (httpx.HTTPError, ValueError, OSError) as error:
        return error

"""Data sets of the `datasets` library, saved or on the Hub, as Arrow tables of the wanted columns."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from trainer.data.reading.bad_rows import BATCH_ROWS
from trainer.data.reading.columns import check_columns
from trainer.data.reading.locate import hub_remedy
from trainer.errors import DataError, first_line, listing

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection


def dataset_tables(
    dataset: Any, where: str, wanted: list[str], data: "DataSection"
) -> Iterator[pa.Table]:
    """The wanted columns of a data set, BATCH_ROWS rows at a time; no wanted columns mean all."""
    if wanted and dataset.column_names:  # of a streamed CSV they are known only from its first rows
        check_columns(where, wanted, dataset.column_names, data)
        dataset = dataset.select_columns(wanted)
    metadata = dataset.features.arrow_schema.metadata if dataset.features else None
    for table in dataset.with_format("arrow").iter(batch_size=BATCH_ROWS):
        check_columns(where, wanted, table.column_names, data)
        yield table.replace_schema_metadata(metadata)


def _split_of(name: str, data: "DataSection") -> str:
    return data.split_names.get(name, "train" if name == "source" else name)  # type: ignore[call-overload, no-any-return]


def load_saved(path: Path, name: str, data: "DataSection") -> Any:
    """The split of a folder that `datasets` saved."""
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(path))
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: is a folder but no saved `datasets` folder. For files in it give a glob such as {path}/*.csv."
        ) from error
    if isinstance(loaded, DatasetDict):
        split = _split_of(name, data)
        if split not in loaded:
            raise DataError(
                f"{path}: no split '{split}'; found: {listing(loaded)}. Set data.split_names."
            )
        return loaded[split]
    return loaded


def load_hub(location: str, name: str, data: "DataSection") -> Any:
    """The split of a Hub data set; with `data.streaming` nothing of it is kept on disk."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    revision = hub_commit(location, data) or data.revision
    try:
        return load_dataset(
            location,
            data.subset,
            split=_split_of(name, data),
            revision=revision,
            streaming=data.streaming,
        )
    except (DatasetsError, ValueError, OSError) as error:
        message = f"data.{name}: '{location}' is no file here and could not be loaded from the Hub: {first_line(error)}"
        raise DataError(f"{message} {hub_remedy()}") from error


def hub_identity(location: str, name: str, data: "DataSection") -> str:
    """What tells one state of a Hub data set from another."""
    if not data.streaming:
        return str(load_hub(location, name, data)._fingerprint)
    commit = _commit(location, data.revision)
    if isinstance(commit, Exception):
        message = f"data.{name}: '{location}' is no file here and could not be found on the Hub: {first_line(commit)}"
        raise DataError(f"{message} {hub_remedy()}") from commit
    return f"{location} {commit}"


def hub_commit(location: str, data: "DataSection") -> str | None:
    """The commit that every reading of this process is of; None where the Hub does not tell, and the cache of `datasets` decides."""
    commit = _commit(location, data.revision)
    return commit if isinstance(commit, str) else None


@cache
def _commit(location: str, revision: str | None) -> str | Exception:
    """Where a branch stands, or why that is not known; asked once: the second reading of a stream shall not find a newer commit."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        return str(HfApi().dataset_info(location, revision=revision, timeout=10).sha)
    except (httpx.HTTPError, ValueError, OSError) as error:
        return error

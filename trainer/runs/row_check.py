"""The option `--check` of `train`: also read and clean the rows of small files. Loads no torch."""

from pathlib import Path

import numpy as np

from trainer.config.config import Config
from trainer.config.sections.data import SplitSection
from trainer.data.cleaning.clean import CleanRows
from trainer.data.cleaning.lost_classes import refuse_one_class
from trainer.data.prepare import read_and_clean, rows_of_epoch
from trainer.data.reading.formats.readers import ENDINGS
from trainer.data.reading.locate import locate
from trainer.data.reading.source_tables import SLOTS, locations
from trainer.errors import counted
from trainer.files.cache import cache_dir
from trainer.runs import training_run
from trainer.training.length import PlannedLength

MOST_BYTES = 1 << 25
"""Files of up to 32 MiB together are read whole, which takes a second or two."""


def check_with_rows(config: Config) -> str:
    """Check a config as `training_run.check` does, then all rows if the files are small.

    The rows are kept in the cache, where training finds them. If training would have too few steps,
    this is printed.

    Returns:
        Which rows were read, in words.
    Raises:
        TrainerError: anything that is wrong.
    """
    training_run.check(config)
    if config.data.streaming or _num_bytes(config) > MOST_BYTES:
        return "the first rows of the data"
    clean = read_and_clean(config.data, config.balance, config.split, cache_dir())
    if clean.label_matrix_NC is None:
        refuse_one_class(clean.labels.names)
        _print_length(config, clean)
    return f"all {counted(clean.rows.table.num_rows, 'row')}"


def _num_bytes(config: Config) -> float:
    """Return the size of all files; infinite for data sets of the Hub and folders."""
    total = 0.0
    for slot in SLOTS:
        for location in locations(config.data, slot):
            paths = locate(location, f"data.{slot}", ENDINGS) or [Path()]
            total += sum(path.stat().st_size if path.is_file() else np.inf for path in paths)
    return total


def _print_length(config: Config, clean: CleanRows) -> None:
    """Print that training would have too few steps, by the share of the rows that it gets."""
    if config.model.mode == "head":
        return
    counts_C = clean.labels.counts(clean.targets[clean.kept(config.data.pool)])
    if config.data.validation is None and not config.data.split_column:
        share = (config.split or SplitSection()).train
        counts_C = np.maximum(1, (counts_C * share).astype(np.int64))
    num_rows = rows_of_epoch(counts_C, config.balance)
    planned = PlannedLength.of(config.training_values, num_rows, len(counts_C))
    if planned.sentence:
        print(planned.sentence)

"""The rows on which trainings choose, and the rows on which strategies are compared.

A training that keeps its best epoch chooses among several models. On the rows of this choice its
metric is too high, the more so the more it varies between epochs. So no row serves both: either the
validation rows are divided (`nested`), or nothing is chosen (`last_step`).
"""

from dataclasses import dataclass, replace

import numpy as np
import xxhash

from trainer.arrays import Ints
from trainer.config.config import Config
from trainer.config.sections.compare import Selection
from trainer.data.cleaning.clean import CleanRows
from trainer.data.splitting.split import Splits
from trainer.data.splitting.splitter import Splitter
from trainer.errors import DataError
from trainer.evaluation.decisions.decision import LEAST_ROWS

SHARE = 0.5
"""Share of the validation rows that are selection rows."""
FOLD_SHARE = 0.2
"""Share of the training rows of a fold that are selection rows."""
FIXED_L2 = 1e-3
"""`model.head.l2` of heads that may not choose it: the middle of the strengths that are tried."""
TUNE_REMEDY = (
    "Give more validation rows (split.validation), set compare.folds, or set compare.selection: "
    "nested to choose on these few."
)


@dataclass(frozen=True)
class DividedRows:
    """The rows of one comparison, or of one of its folds.

    Attributes:
        splits: the training rows, and as `validation` the rows that a training may choose on.
        compared: row ids on which strategies are compared.
    """

    splits: Splits
    compared: Ints

    @property
    def digest(self) -> str:
        """Return a digest of the rows that are chosen on and of those that are compared."""
        rows = (self.splits.train, self.splits.validation, self.compared)
        return xxhash.xxh3_128(b"|".join(ids.tobytes() for ids in rows)).hexdigest()


@dataclass(frozen=True)
class UsedSelection:
    """How the trainings of a comparison choose.

    Attributes:
        used: `nested` or `last_step`.
        num_selection, num_compared: rows chosen on by a training, and rows compared in all.
        words: both in words, for the terminal and the page.
    """

    used: str
    num_selection: int
    num_compared: int
    words: str


def chooses(config: Config) -> bool:
    """Return whether a training chooses an epoch, a head its strength, or a strategy its setting,
    on validation rows.
    """
    if config.compare.tune:
        return True
    if config.compare.quick or config.model.mode == "head":
        return config.model.head.l2 is None or config.compare.quick
    values = config.training_values
    return bool(values["load_best_model_at_end"] and values["eval_strategy"] != "no")


def nothing_chosen(config: Config) -> Config:
    """Return the config of a training that runs to its last step and chooses nothing."""
    config = config.with_training(load_best_model_at_end=False, early_stopping_patience=None)
    if config.model.mode != "head" or config.model.head.l2 is not None:
        return config
    values = config.to_dict()
    values["model"]["head"]["l2"] = FIXED_L2
    return Config.model_validate(values)


def divide(
    config: Config, clean: CleanRows, folds: list[Splits]
) -> tuple[UsedSelection, list[DividedRows]]:
    """Return how trainings choose, and the rows of each fold.

    Args:
        folds: the splits of each fold; one entry without folds.
    Raises:
        DataError: `nested` leaves no row to choose on, or none to compare.
    """
    asked: Selection = config.compare.selection
    whole = [DividedRows(splits, splits.validation) for splits in folds]
    if asked == "last_step":
        return _used(config, "last_step", whole, ""), whole
    if asked == "auto" and not chooses(config):
        reason = "nothing is chosen on validation rows, as configured"
        return _used(config, "last_step", whole, reason), whole
    nested = [_nested(config, clean, splits) for splits in folds]
    reason, metric = _few_rows(clean, nested), config.compare.metric
    if reason and config.compare.tune and asked == "auto":
        raise DataError(f"compare.tune chooses on selection rows: {reason}. {TUNE_REMEDY}")
    if reason and config.compare.tune and metric.startswith("minority"):
        raise DataError(
            f"compare.tune chooses by {metric}, but {reason}. Give more validation rows "
            "(split.validation), or set compare.metric: macro_f1."
        )
    if reason and asked == "auto":
        return _used(config, "last_step", whole, reason), whole
    if not all(len(of.splits.validation) and len(of.compared) for of in nested):
        raise DataError(
            "compare.selection is 'nested', but there are too few rows to divide them into "
            "selection rows and compared rows. Set compare.selection: last_step."
        )
    return _used(config, "nested", nested, ""), nested


def _nested(config: Config, clean: CleanRows, splits: Splits) -> DividedRows:
    """Divide the validation rows, or with folds the training rows, by the splitter of the splits.

    Rows of a class that is too rare to be divided are compared, or with folds train.
    """
    section = config.split and config.split.model_copy(update={"rare_classes": "keep"})
    has_folds = config.compare.folds is not None
    pool, share = (splits.train, FOLD_SHARE) if has_folds else (splits.validation, SHARE)
    cutter = Splitter(clean, pool, config.data, section, config.run.seed)
    rest, selection = cutter.cut(pool, [1 - share, share], "comparison split")
    if has_folds:
        return DividedRows(replace(splits, train=rest, validation=selection), splits.validation)
    return DividedRows(replace(splits, validation=selection), rest)


def _few_rows(clean: CleanRows, nested: list[DividedRows]) -> str:
    """Return why the rarest class has too few rows to be divided, or an empty string."""
    counts_C = np.min(
        [
            clean.labels.counts(clean.targets[rows])
            for of in nested
            for rows in (of.splits.validation, of.compared)
        ],
        axis=0,
    )
    rarest = int(counts_C.argmin())
    if counts_C[rarest] >= LEAST_ROWS:
        return ""
    kind = "class" if clean.label_matrix_NC is None else "label"
    return (
        f"'{clean.labels.names[rarest]}' would have {counts_C[rarest]:,} selection rows or "
        f"compared rows, and nested needs {LEAST_ROWS} of each {kind} on both sides"
    )


def _used(config: Config, used: str, rows: list[DividedRows], reason: str) -> UsedSelection:
    """Return the selection with its words."""
    num_selection = len(rows[0].splits.validation)
    num_compared = sum(len(of.compared) for of in rows)
    what = "out-of-fold rows" if config.compare.folds else "validation rows"
    because = f" ({reason})" if reason else ""
    if used == "nested":
        source = " of the training rows of its fold" if config.compare.folds else ""
        who = "settings and epochs are chosen" if config.compare.tune else "each training chooses"
        words = (
            f"nested: {who} on {num_selection:,} selection rows{source}; "
            f"{num_compared:,} other {what} are compared"
        )
        return UsedSelection(used, num_selection, num_compared, words)
    words = (
        f"last_step: each training runs to its last step and chooses nothing{because}; all "
        f"{num_compared:,} {what} are compared"
    )
    return UsedSelection(used, 0, num_compared, words)

"""Why cleaning and splitting drop rows."""

from trainer.arrays import Ints
from trainer.errors import DataError

REASONS = (
    "kept",
    "empty text",
    "missing label",
    "label dropped by data.drop_labels or data.label_map",
    "duplicate text",
    "conflicting labels, outvoted",
    "conflicting labels, tie",
    "text also in validation or test",
    "joined to another row of its text",
    "class too rare to split",
)
KEPT, EMPTY, UNLABELLED, UNWANTED, DUPLICATE, OUTVOTED, TIE, LEAKED, JOINED, RARE = range(
    len(REASONS)
)
CONFLICTS = (OUTVOTED, TIE)


def refuse_nothing_left(key: str, counts_R: Ints) -> None:
    """Raise DataError if no row of a config key is kept.

    Args:
        key: "data.test" or the like, for the message.
        counts_R: the rows of the key by reason.
    """
    if not counts_R[KEPT]:
        reasons = zip(counts_R, REASONS, strict=True)
        counts = "; ".join(f"{count} {reason}" for count, reason in reasons if count)
        raise DataError(
            f"{key}: no row is left of {counts_R.sum()} after cleaning: {counts}. Check"
            " data.text_column, data.label_column and data.clean."
        )

"""Warnings of rows that were probably read in another way than their owner means."""

import warnings
from typing import TYPE_CHECKING

from trainer.errors import listing

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection
    from trainer.data.cleaning.clean import CleanRows


def warn_of_odd_rows(clean: "CleanRows", data: "DataSection") -> None:
    """Warn where cleaning drops most rows, where every row has a label, and where a label column never says yes."""
    counts = {
        reason: count
        for reason, count in clean.counts.items()
        if count and not reason.startswith("stripped")
    }
    kept, total = counts.pop("kept", 0), sum(counts.values()) + clean.counts["kept"]
    if 2 * kept < total:
        reasons = ", ".join(
            f"{count:,} {reason}"
            for reason, count in sorted(counts.items(), key=lambda item: -item[1])
        )
        words = f"cleaning keeps only {kept:,} of {total:,} rows ({reasons})"
        warnings.warn(
            f"{words}. Look at dropped.jsonl, or at `equipoise audit`; the rules are in data.clean.",
            stacklevel=2,
        )
    if clean.label_matrix_NC is None:
        return
    rows_of = clean.labels.counts(clean.targets[clean.reasons_N == 0])
    always = [name for name, rows in zip(clean.labels.names, rows_of, strict=True) if rows == kept]
    if always:
        words = f"every row has the label {listing(always)}, so nothing can be learnt about it"
        warnings.warn(
            f"{words}. Check data.label_column and how its cells are read, or leave the label out by data.label_map.",
            stacklevel=2,
        )
    never = sorted(
        set(data.label_columns or [])
        - {name for name in clean.naming.names if clean.naming.names[name]}
        - clean.naming.dropped
    )
    if never:
        warnings.warn(
            f"data.label_columns: no row has {listing(never)}, so the model will not know it. Add rows, or remove the column.",
            stacklevel=2,
        )

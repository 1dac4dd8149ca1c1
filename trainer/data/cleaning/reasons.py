"""Why cleaning and splitting drop rows."""

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

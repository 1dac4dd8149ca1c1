"""Keep texts of validation and test out of training, and texts of test out of validation."""

import numpy as np
from numpy.typing import NDArray

from trainer.arrays import Hashes
from trainer.data.cleaning.reasons import KEPT, LEAKED
from trainer.data.reading.source_tables import SLOTS


def drop_leaks(reasons_N: NDArray[np.int8], hashes_N: Hashes, slots_N: NDArray[np.int8]) -> None:
    """Drop rows of train or validation, in place, whose text is also in a later given split."""
    for early, later in (("train", ("validation", "test")), ("validation", ("test",))):
        own = np.flatnonzero((reasons_N == KEPT) & (slots_N == SLOTS.index(early)))
        is_later_N = (reasons_N == KEPT) & np.isin(slots_N, [SLOTS.index(name) for name in later])
        reasons_N[own[np.isin(hashes_N[own], hashes_N[is_later_N])]] = LEAKED

"""Names for the types of NumPy arrays. Suffixes of variables name axes: `labels_N`, `logits_NC`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]

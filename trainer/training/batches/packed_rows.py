"""The places of the rows of a batch from which padding is removed.

Legend: B rows, T tokens of all rows together, L tokens of the longest row (rounded up to a multiple
of MULTIPLE where rows are padded on the right), P = B x L places.
"""

from functools import cached_property

import torch
from torch import Tensor

from trainer.training.batches.sending import send

MULTIPLE = 8
"""Number that divides the width of rows padded in attention, and the size of filled-up batches."""


class PackedRows:
    """The place of each row among the tokens of a batch.

    Args:
        mask_BL: places of the padded batch that hold a token, on the CPU, so that nothing waits
            for the GPU. A row without a token gets one padding token.
        device: device of the model.
    Attributes:
        windows: sliding windows that attention was called with.
    """

    def __init__(self, mask_BL: Tensor, device: torch.device) -> None:
        self.mask_BL, self.device = mask_BL.clone(), device
        self.mask_BL[:, 0] |= ~mask_BL.any(1)
        self.windows: set[int | None] = set()

    @cached_property
    def lengths_B(self) -> list[int]:
        """Tokens of each row."""
        return self.mask_BL.sum(1).tolist()

    @cached_property
    def num_tokens(self) -> int:
        """Tokens of all rows."""
        return sum(self.lengths_B)

    @property
    def places_T(self) -> Tensor:
        """Place of each token in the flattened padded batch."""
        return self._sent["places_T"]

    @property
    def position_ids_T(self) -> Tensor:
        """Position of each token in its row, from 0."""
        return self._sent["position_ids_T"]

    @property
    def first_B(self) -> Tensor:
        """Place of the first token of each row among all tokens."""
        return self._sent["first_B"]

    @property
    def offsets_B1(self) -> Tensor:
        """Place among all tokens where each row starts, and where the last one ends, as int32."""
        return self._sent["offsets_B1"]

    @property
    def row_offsets_B1(self) -> Tensor:
        """The same if each row had one token: 0 to B, as int32."""
        return self._sent["row_offsets_B1"]

    @cached_property
    def _sent(self) -> dict[str, Tensor]:
        offsets_B1 = torch.tensor([0, *self.lengths_B]).cumsum(0)
        tensors = {
            "places_T": self.mask_BL.flatten().nonzero()[:, 0],
            "position_ids_T": (self.mask_BL.cumsum(1) - 1)[self.mask_BL],
            "first_B": offsets_B1[:-1],
            "offsets_B1": offsets_B1.int(),
            "row_offsets_B1": torch.arange(len(offsets_B1), dtype=torch.int32),
        }
        return send(tensors, self.device)

    @property
    def right_places_T(self) -> Tensor:
        """Place of each token in the flattened batch, padded on the right."""
        return self._right_padded["places_T"]

    @property
    def right_tokens_P(self) -> Tensor:
        """Token at each place of the flattened batch, padded on the right; 0 at padded places."""
        return self._right_padded["tokens_P"]

    @property
    def right_mask_BL(self) -> Tensor:
        """Places of the batch, padded on the right, that hold a token."""
        return self._right_padded["mask_BL"]

    @cached_property
    def _right_padded(self) -> dict[str, Tensor]:
        """What attention needs that pads the rows; flash attention does without."""
        lengths_B1 = torch.tensor(self.lengths_B)[:, None]
        # GPUs would otherwise copy the mask, and CPUs compile kernels for each length
        width = -(-max(self.lengths_B) // MULTIPLE) * MULTIPLE
        mask_BL = torch.arange(width) < lengths_B1
        is_token_P = mask_BL.flatten()
        tensors = {
            "mask_BL": mask_BL,
            "places_T": is_token_P.nonzero()[:, 0],
            "tokens_P": (is_token_P.cumsum(0) - 1) * is_token_P,
        }
        return send(tensors, self.device)

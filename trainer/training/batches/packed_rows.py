"""The places of the rows of a batch from which padding is removed.

Legend: B rows, T tokens of all rows together, L tokens of the longest row.
"""

from functools import cached_property

import torch
from torch import Tensor


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
    def places_T(self) -> Tensor:
        """Place of each token in the flattened padded batch."""
        return to_device(self.mask_BL.flatten().nonzero()[:, 0], self.device)

    @cached_property
    def position_ids_T(self) -> Tensor:
        """Position of each token in its row, from 0."""
        return to_device((self.mask_BL.cumsum(1) - 1)[self.mask_BL], self.device)

    @cached_property
    def first_B(self) -> Tensor:
        """Place of the first token of each row among all tokens."""
        return to_device(torch.tensor([0, *self.lengths_B[:-1]]).cumsum(0), self.device)

    @cached_property
    def length_groups(self) -> list[tuple[int, int]]:
        """Groups of consecutive rows of equal length: (number of rows, tokens of each)."""
        lengths_B = torch.tensor(self.lengths_B)
        lengths_G, counts_G = torch.unique_consecutive(lengths_B, return_counts=True)
        return list(zip(counts_G.tolist(), lengths_G.tolist(), strict=True))

    @cached_property
    def right_places_T(self) -> Tensor:
        """Place of each token in the flattened batch, padded on the right."""
        return to_device(self._right_mask_BL.flatten().nonzero()[:, 0], self.device)

    @cached_property
    def right_mask_BL(self) -> Tensor:
        """Places of the batch, padded on the right, that hold a token."""
        return to_device(self._right_mask_BL, self.device)

    @cached_property
    def _right_mask_BL(self) -> Tensor:
        lengths_B1 = torch.tensor(self.lengths_B)[:, None]
        # kernels of GPUs would otherwise copy the mask to a multiple of 8, in each layer
        multiple = 1 if self.device.type == "cpu" else 8
        return torch.arange(-(-int(lengths_B1.max()) // multiple) * multiple) < lengths_B1


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; on CUDA the CPU does not wait for the copy.

    The copy is queued before the work that needs it.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")

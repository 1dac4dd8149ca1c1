"""Where the rows of a batch stand when its padding is left out. Legend: B rows, T tokens of all rows together, L tokens of the longest row."""

from functools import cached_property

import torch
from torch import Tensor


class PackedRows:
    """Where each row stands among the tokens of a batch.

    Args:
        mask_BL: which places of the padded batch hold a token, on the CPU: then nothing waits for the GPU. A row without a token reads one
            of its padding.
        device: where the model is.
    Attributes:
        windows: sliding windows that attention was asked for.
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
        """Place of each token in the padded batch, counted over its rows."""
        return self._on_device(self.mask_BL.flatten().nonzero()[:, 0])

    @cached_property
    def position_ids_T(self) -> Tensor:
        """Position of each token in its row, from 0."""
        return self._on_device((self.mask_BL.cumsum(1) - 1)[self.mask_BL])

    @cached_property
    def first_B(self) -> Tensor:
        """The first token of each row among all tokens."""
        return self._on_device(torch.tensor([0, *self.lengths_B[:-1]]).cumsum(0))

    @cached_property
    def runs(self) -> list[tuple[int, int]]:
        """Stretches of rows of equal length: (number of rows, tokens of each)."""
        lengths_R, counts_R = torch.unique_consecutive(
            torch.tensor(self.lengths_B), return_counts=True
        )
        return list(zip(counts_R.tolist(), lengths_R.tolist(), strict=True))

    @cached_property
    def right_places_T(self) -> Tensor:
        """Place of each token in a batch padded on the right, counted over its rows."""
        return self._on_device(self._right_mask_BL.flatten().nonzero()[:, 0])

    @cached_property
    def right_mask_BL(self) -> Tensor:
        """Which places of that batch hold a token."""
        return self._on_device(self._right_mask_BL)

    @cached_property
    def _right_mask_BL(self) -> Tensor:
        lengths_B1 = torch.tensor(self.lengths_B)[:, None]
        width = int(lengths_B1.max())
        if self.device.type != "cpu":
            width = (
                -(-width // 8) * 8
            )  # else the kernels of GPUs copy the mask to such a width, in each layer
        return torch.arange(width) < lengths_B1

    def _on_device(self, tensor: Tensor) -> Tensor:
        return to_device(tensor, self.device)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; on CUDA nothing waits for the copy, which stands in the same queue as what needs it."""
    return tensor.to(device, non_blocking=device.type == "cuda")

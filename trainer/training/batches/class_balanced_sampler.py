"""A sampler for any torch DataLoader that draws every class equally often.

Legend: N rows, C classes, S strata (the classes, then the rows without one).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from trainer.arrays import Array, Bools, Ints
from trainer.data.balancing.from_labels import checked_labels
from trainer.data.balancing.label_rounds import drawn_of_strata, order_in_rounds


class ClassBalancedSampler(Sampler[int]):
    """Draw the rows of an epoch so that every class has equally many, well mixed.

    Any C consecutive rows that begin at a multiple of C hold every class once, so every batch is
    balanced up to one row. The rows of a class are repeated only after all of them were drawn. The
    order depends on `seed` and the epoch alone, so all processes agree on it.

    With several labels a row, every label is drawn equally often, each time with a row that has it.
    Labels that occur together are therefore seen more often than they are drawn. Rows without a
    label are drawn as often as one label, but none twice in an epoch.

    Args:
        labels: label id or name of each row (N,), or 0 and 1 for each label (N, C).
        num_samples: rows of an epoch, all processes together; by default N.
        seed: of the random order.
        num_replicas: number of processes. Leave 1 within `transformers.Trainer` or after
            `accelerator.prepare`, which divide the batches themselves.
        rank: number of this process, from 0.

    Raises:
        ValueError: no rows, no label, a missing label, no samples, or a rank outside
            [0, num_replicas).

    Source: class-balanced sampling, Kang et al. 2020, https://arxiv.org/abs/1910.09217.

    Example:
        >>> sampler = ClassBalancedSampler(["rare", "common", "common", "common"], seed=1)
        >>> rows = list(sampler)
        >>> len(rows), rows.count(0)
        (4, 2)
    """

    def __init__(
        self,
        labels: Sequence[Any] | Array,
        *,
        num_samples: int | None = None,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        self.rows_of_stratum, self.is_label_S = _strata(labels)
        if not 0 <= rank < num_replicas:
            raise ValueError(f"rank is {rank}; give 0 to {num_replicas - 1} (num_replicas - 1)")
        if num_samples is not None and num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}; give 1 or more")
        self.num_samples = len(labels) if num_samples is None else num_samples
        self.seed, self.num_replicas, self.rank, self.epoch = seed, num_replicas, rank, 0

    def __len__(self) -> int:
        """Return the rows of this process in an epoch; the last ones are repeated if needed."""
        return -(-self.num_samples // self.num_replicas)

    def __iter__(self) -> Iterator[int]:
        """Yield the rows of this process for the current epoch."""
        total = len(self) * self.num_replicas
        rows = self._order(total)[self.rank :: self.num_replicas]
        return iter(rows.tolist())

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which changes the order; Trainer and accelerate call it.

        Args:
            epoch: its number, from 0.

        Example:
            >>> sampler = ClassBalancedSampler([0, 1] * 50)
            >>> first = list(sampler)
            >>> sampler.set_epoch(1)
            >>> list(sampler) == first
            False
        """
        self.epoch = epoch

    def _order(self, total: int) -> Ints:
        """Return rows of all processes: rounds with each class once, in a random order."""
        generator = np.random.default_rng([self.seed, self.epoch])
        counts_S = np.array([len(rows) for rows in self.rows_of_stratum])
        drawn_S = drawn_of_strata(counts_S, self.is_label_S, total)
        drawn = []
        for rows, times in zip(self.rows_of_stratum, drawn_S.tolist(), strict=True):
            copies = [generator.permutation(rows) for _ in range(-(-times // len(rows)))]
            drawn.append(np.concatenate(copies)[:times])
        return np.concatenate(drawn)[order_in_rounds(drawn_S, generator)][:total]


def _strata(labels: Sequence[Any] | Array) -> tuple[list[Ints], Bools]:
    """Return the rows of each class that has rows, and of those without one; and which are classes.

    Raises:
        ValueError: no rows, no label, a missing label, or vectors of other values than 0 and 1.
    """
    labels_NC = np.asarray(labels)
    if labels_NC.ndim != 2:
        _, ids_N = np.unique(checked_labels(labels), return_inverse=True)
        order_N = np.argsort(ids_N, kind="stable")
        rows_of_class = np.split(order_N, np.cumsum(np.bincount(ids_N))[:-1])
        return rows_of_class, np.ones(len(rows_of_class), bool)
    if not np.isin(labels_NC, (0, 1)).all():
        raise ValueError("labels holds other values than 0 and 1 in its vectors")
    if not labels_NC.any():
        raise ValueError("labels holds no 1, so no label can be drawn")
    has_label_NC = np.c_[labels_NC > 0, ~labels_NC.any(axis=1)]
    present = np.flatnonzero(has_label_NC.any(axis=0))
    is_label_S = present < labels_NC.shape[1]
    return [np.flatnonzero(has_label_NC[:, s]) for s in present], is_label_S

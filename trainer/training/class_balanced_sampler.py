"""A sampler for any torch DataLoader that draws every class equally often.

Legend: N rows, C classes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from trainer.arrays import Array, Ints
from trainer.data.balancing.from_labels import checked_labels


class ClassBalancedSampler(Sampler[int]):
    """Draw the rows of an epoch so that every class has equally many, well mixed.

    Any C consecutive rows that begin at a multiple of C hold every class once, so every batch is
    balanced up to one row. The rows of a class are repeated only after all of them were drawn. The
    order depends on `seed` and the epoch alone, so all processes agree on it.

    Args:
        labels: label id or name of each row (N,).
        num_samples: rows of an epoch, all processes together; by default N.
        seed: of the random order.
        num_replicas: number of processes. Leave 1 within `transformers.Trainer` or after
            `accelerator.prepare`, which divide the batches themselves.
        rank: number of this process, from 0.

    Raises:
        ValueError: no rows, several labels a row, a missing label, no samples, or a rank
            outside [0, num_replicas).

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
        labels_N = checked_labels(labels)
        if not 0 <= rank < num_replicas:
            raise ValueError(f"rank is {rank}; give 0 to {num_replicas - 1} (num_replicas - 1)")
        if num_samples is not None and num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}; give 1 or more")
        _, ids_N = np.unique(labels_N, return_inverse=True)
        order_N = np.argsort(ids_N, kind="stable")
        self.rows_of_class = np.split(order_N, np.cumsum(np.bincount(ids_N))[:-1])
        self.num_samples = len(labels_N) if num_samples is None else num_samples
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
        """Return rows of all processes: rounds of C rows, each class once in a random order."""
        generator = np.random.default_rng([self.seed, self.epoch])
        num_classes = len(self.rows_of_class)
        num_rounds = -(-total // num_classes)
        drawn_CR = np.empty((num_classes, num_rounds), np.int64)
        for label_id, rows in enumerate(self.rows_of_class):
            copies = [generator.permutation(rows) for _ in range(-(-num_rounds // len(rows)))]
            drawn_CR[label_id] = np.concatenate(copies)[:num_rounds]
        classes_RC = np.argsort(generator.random((num_rounds, num_classes)), axis=1)
        return drawn_CR[classes_RC, np.arange(num_rounds)[:, None]].ravel()[:total]

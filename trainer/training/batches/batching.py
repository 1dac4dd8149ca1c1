"""The order and shape of batches: which rows form an optimizer step, how it is cut and padded.

The rows of a step depend only on the seed, the epoch and the number of rows per step. The way in
which a step is cut into micro-batches and processes does not change its gradient, so it is cut by
length.

Legend: N rows, B rows of a batch, L tokens of the longest row.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from trainer.arrays import Array, Ints
from trainer.data.balancing.balance import stage_generator
from trainer.data.balancing.label_rounds import order_in_rounds
from trainer.data.tokens.tokenise import PADDING
from trainer.errors import ConfigError

STEPS_PER_GROUP = 50
"""Steps whose rows are sorted by length together, as in transformers' LengthGroupedSampler."""


def order_random(
    positions_N: Ints, lengths_N: Ints, rows_per_step: int, generator: np.random.Generator
) -> Ints:
    """Return the rows in random order."""
    return generator.permutation(positions_N)


def order_sequential(
    positions_N: Ints, lengths_N: Ints, rows_per_step: int, generator: np.random.Generator
) -> Ints:
    """Return the rows in the order of the file."""
    return positions_N


def order_by_length(
    positions_N: Ints, lengths_N: Ints, rows_per_step: int, generator: np.random.Generator
) -> Ints:
    """Return the rows in random order, with rows of similar length in the same step."""
    shuffled = generator.permutation(positions_N)
    group = rows_per_step * STEPS_PER_GROUP
    parts = [shuffled[start : start + group] for start in range(0, len(shuffled), group)]
    ordered = np.concatenate([part[np.argsort(-lengths_N[part], kind="stable")] for part in parts])
    whole = len(ordered) // rows_per_step * rows_per_step
    steps = ordered[:whole].reshape(-1, rows_per_step)
    return np.concatenate([steps[generator.permutation(len(steps))].ravel(), ordered[whole:]])


def order_class_balanced(
    positions_N: Ints, label_ids_N: Ints, rows_per_class: int, generator: np.random.Generator
) -> Ints:
    """Return the rows in a random order in which every step holds each class equally often.

    Args:
        positions_N: rows of the epoch, the same number for each class.
        label_ids_N: class of each of them.
        rows_per_class: rows of each class in a step.
        generator: source of the order.
    """
    shuffled = generator.permutation(len(positions_N))
    sorted_N = positions_N[shuffled[np.argsort(label_ids_N[shuffled], kind="stable")]]
    by_class = sorted_N.reshape(len(np.unique(label_ids_N)), -1)
    starts = range(0, by_class.shape[1], rows_per_class)
    return np.concatenate([by_class[:, s : s + rows_per_class].ravel() for s in starts])


SAMPLERS: dict[str, Callable[[Ints, Ints, int, np.random.Generator], Ints]] = {
    "group_by_length": order_by_length,
    "random": order_random,
    "sequential": order_sequential,
}
"""Functions that order the rows of an epoch, by `training.train_sampling_strategy`.

Consecutive rows form a step.
"""


class StepBatchSampler(Sampler[list[int]]):
    """Micro-batches of one process, in the order of the optimizer steps.

    Args:
        positions: function (epoch) -> rows of the epoch, the same number in every epoch.
        lengths_N: tokens of each row.
        strategy: an entry of SAMPLERS.
        seed: seed of the order.
        rows_per_batch: most rows of a micro-batch.
        batches_per_step: micro-batches of one process in a step (gradient accumulation).
        num_shards, shard: number of processes, and number of this one.
        drop_last: whether to leave out the last step of an epoch if it lacks rows.
        balanced_label_ids_N: class of each row, if every step must hold each class equally often.
            A step then has as many rows as fit, a multiple of the number of classes, and
            `strategy` is not used.
        draws_S: draws for each label of multi-label rows, in the order of `positions`, if every
            step must draw the labels equally often. `strategy` is not used.
    Raises:
        ConfigError: a step has fewer rows than there are classes.
    """

    def __init__(
        self,
        positions: Callable[[int], Ints],
        lengths_N: Ints,
        *,
        strategy: str,
        seed: int,
        rows_per_batch: int,
        batches_per_step: int,
        num_shards: int = 1,
        shard: int = 0,
        drop_last: bool = False,
        balanced_label_ids_N: Ints | None = None,
        draws_S: Ints | None = None,
    ) -> None:
        self.positions, self.lengths_N = positions, lengths_N
        self.strategy, self.seed, self.epoch = strategy, seed, 0
        self.rows_per_batch, self.batches_per_step = rows_per_batch, batches_per_step
        self.num_shards, self.shard, self.drop_last = num_shards, shard, drop_last
        self.num_rows = len(positions(0))
        self.balanced_label_ids_N, self.draws_S = balanced_label_ids_N, draws_S
        self.num_classes = (
            1 if balanced_label_ids_N is None else len(np.unique(balanced_label_ids_N))
        )
        refuse_small_steps(self.num_classes, rows_per_batch, batches_per_step, num_shards)

    @property
    def rows_per_step(self) -> int:
        """Rows of one optimizer step over all processes."""
        room = self.rows_per_batch * self.batches_per_step * self.num_shards
        return room // self.num_classes * self.num_classes

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def _num_batches(self, rows_in_step: int) -> int:
        if rows_in_step == self.rows_per_step:
            # the Trainer takes so many, even if balanced rows would fit into fewer
            return self.batches_per_step
        return -(-rows_in_step // (self.rows_per_batch * self.num_shards))

    def __len__(self) -> int:
        whole, rest = divmod(self.num_rows, self.rows_per_step)
        last = 0 if self.drop_last else self._num_batches(rest)
        return whole * self.batches_per_step + last

    def rows_of_step(self, step: int) -> int:
        """Return the rows of an optimizer step over all processes, counted over all epochs."""
        steps_per_epoch = -(-len(self) // self.batches_per_step)
        done = step % steps_per_epoch * self.rows_per_step
        return min(self.rows_per_step, self.num_rows - done)

    def steps(self) -> Iterator[Ints]:
        """Yield the rows of each optimizer step of the epoch."""
        generator = stage_generator(self.seed, "order", self.epoch)
        positions = self.positions(self.epoch)
        if self.balanced_label_ids_N is not None:
            label_ids_N = self.balanced_label_ids_N[positions]
            rows_per_class = self.rows_per_step // self.num_classes
            order = order_class_balanced(positions, label_ids_N, rows_per_class, generator)
        elif self.draws_S is not None:
            order = positions[order_in_rounds(self.draws_S, generator)]
        else:
            order = SAMPLERS[self.strategy](
                positions, self.lengths_N, self.rows_per_step, generator
            )
        for start in range(0, len(order), self.rows_per_step):
            rows = order[start : start + self.rows_per_step]
            if len(rows) == self.rows_per_step or not self.drop_last:
                yield rows

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self.steps():
            num_batches = self._num_batches(len(rows))
            cuts = num_batches * self.num_shards
            rows = rows[np.argsort(-self.lengths_N[rows], kind="stable")]
            size = -(-len(rows) // cuts)
            filled = np.full(cuts * size, PADDING, np.int64)
            filled[: len(rows)] = rows
            for batch in filled.reshape(num_batches, self.num_shards, size)[:, self.shard]:
                yield batch.tolist()


def refuse_small_steps(
    num_classes: int, rows_per_batch: int, batches_per_step: int, num_processes: int
) -> None:
    """Raise ConfigError if an optimizer step cannot hold a row of every class."""
    if rows_per_batch * batches_per_step * num_processes < num_classes:
        raise ConfigError(
            f"balance.method is 'class_balanced_batches' with {num_classes} classes, but an"
            f" optimizer step holds {rows_per_batch} rows x {batches_per_step} micro-batches x"
            f" {num_processes} process(es). Raise training.per_device_train_batch_size or"
            " gradient_accumulation_steps."
        )


class Collator:
    """Function from rows to one padded batch of tensors.

    Args:
        tokenizer: tokenizer whose padding token and padding side are used.
        multiple: number of tokens that divides the width of every batch.
    Attributes:
        least: least width of a batch, in tokens.
    """

    def __init__(self, tokenizer: Any, multiple: int = 1) -> None:
        self.padding_ids = {
            "input_ids": tokenizer.pad_token_id or 0,
            "token_type_ids": tokenizer.pad_token_type_id,
        }
        self.pads_left = tokenizer.padding_side == "left"
        self.multiple, self.least = multiple, 1

    def __call__(self, rows: dict[str, Array]) -> dict[str, Tensor]:
        """Return the inputs of the model for rows from TokenisedRows; `labels` may be missing."""
        lengths_B1 = rows["lengths"][:, None]
        width = -(-max(self.least, int(lengths_B1.max())) // self.multiple) * self.multiple
        columns_L = np.arange(width)
        mask_BL = columns_L >= width - lengths_B1 if self.pads_left else columns_L < lengths_B1
        batch = {"attention_mask": torch.from_numpy(mask_BL.astype(np.int64))}
        for name, padding_id in self.padding_ids.items():
            if name in rows:
                padded_BL = np.full(mask_BL.shape, padding_id, np.int64)
                padded_BL[mask_BL] = rows[name]
                batch[name] = torch.from_numpy(padded_BL)
        return batch | ({"labels": torch.from_numpy(rows["labels"])} if "labels" in rows else {})


def tokens_per_pass(device: Any) -> int:
    """Return the default size of a pass in tokens.

    On a CPU it is small, so that the tensors stay in its caches; on a GPU it is large enough to
    use the whole device.
    """
    return 2_048 if torch.device(device).type == "cpu" else 16_384


def token_batches(
    lengths_N: Ints, tokens_per_batch: int, *, equal_lengths: bool = False
) -> list[Ints]:
    """Return batches of rows of similar length, the longest rows first.

    Args:
        lengths_N: tokens of each row.
        tokens_per_batch: most tokens of a batch, padding included; a batch has at least one row.
        equal_lengths: whether all rows of a batch must have the same length.
    """
    order = np.argsort(-lengths_N, kind="stable")
    descending_N = lengths_N[order]
    batches, start = [], 0
    while start < len(order):
        length = int(descending_N[start])
        end = start + max(1, tokens_per_batch // max(1, length))
        if equal_lengths:
            end = min(end, int(np.searchsorted(-descending_N, -length, side="right")))
        batches.append(order[start:end])
        start = end
    return batches


def tokens_computed(lengths_B: list[int], *, pads: bool) -> int:
    """Return the tokens that a device computes in a pass over rows of these lengths.

    Args:
        lengths_B: tokens of each row.
        pads: whether the model, or its attention alone, pads rows of different lengths.
    """
    return max(lengths_B) * len(lengths_B) if pads else sum(lengths_B)


def pass_starts(
    lengths_B: list[int],
    tokens: int,
    *,
    pads: bool = True,
    equal_lengths: bool = False,
    at_least: int = 1,
) -> list[int]:
    """Return the first row of each pass of a batch; a pass has consecutive rows, at least one.

    Args:
        lengths_B: tokens of each row.
        tokens: most tokens that are computed in a pass.
        pads: see `tokens_computed`.
        equal_lengths: whether all rows of a pass must have the same length.
        at_least: least number of passes, at most the number of rows; the largest passes are halved
            until there are so many.
    """
    starts, total, longest = [0], 0, 0
    for row, length in enumerate(lengths_B):
        size = row - starts[-1] + 1
        longest, total = max(longest, length), total + length
        is_full = (longest * size if pads else total) > tokens
        is_other = equal_lengths and length != lengths_B[row - 1]
        if size > 1 and (is_full or is_other):
            starts.append(row)
            total, longest = length, length
    while len(starts) < at_least:
        sizes = np.diff([*starts, len(lengths_B)])
        widest = int(sizes.argmax())
        starts.insert(widest + 1, starts[widest] + int(sizes[widest]) // 2)
    return starts


def cut_into_passes(
    batch: dict[str, Tensor], starts: list[int], *, multiple: int = 8, least: int = 1
) -> list[dict[str, Tensor]]:
    """Cut a padded batch into smaller ones of consecutive rows, each padded to its longest row.

    Args:
        batch: tensors of the batch, all rows first.
        starts: first row of each smaller batch.
        multiple: number of tokens that divides the width of each.
        least: least width of each, in tokens.
    """
    mask_BL = batch["attention_mask"]
    num_rows, width = mask_BL.shape
    if len(starts) == 1:
        return [batch]
    is_left = bool(mask_BL[:, -1].all())  # also true if no row is padded
    passes = []
    for start, end in zip(starts, [*starts[1:], num_rows], strict=True):
        longest = max(least, int(mask_BL[start:end].sum(1).max()))
        kept = min(width, -(-longest // multiple) * multiple)
        columns = slice(width - kept, None) if is_left else slice(kept)
        passes.append(
            {
                name: tensor[start:end] if name == "labels" else tensor[start:end, columns]
                for name, tensor in batch.items()
            }
        )
    return passes


class StepDataLoader(DataLoader[Any]):
    """DataLoader that passes the epoch on to its StepBatchSampler."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; transformers.Trainer calls this before each epoch."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]

"""Order and shape of batches: which rows form an optimizer step, how a step is cut and padded; table SAMPLERS.

Which rows form a step depends on (seed, epoch, rows per step) alone. How the step is cut into micro-batches and
processes does not change its gradient, so the cut follows length.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from trainer.arrays import Array, Ints
from trainer.data.balancing.balance import stage_generator
from trainer.data.tokens.tokenise import PADDING
from trainer.errors import ConfigError

STEPS_PER_GROUP = 50  # as transformers' LengthGroupedSampler: long enough to sort well, short enough to stay random


def order_random(
    positions_N: Ints, lengths_N: Ints, rows_per_step: int, generator: np.random.Generator
) -> Ints:
    """Rows in random order."""
    return generator.permutation(positions_N)


def order_sequential(
    positions_N: Ints, lengths_N: Ints, rows_per_step: int, generator: np.random.Generator
) -> Ints:
    """Rows in the order of the file."""
    return positions_N


def order_by_length(
    positions_N: Ints, lengths_N: Ints, rows_per_step: int, generator: np.random.Generator
) -> Ints:
    """Random order in which the rows of one step have like lengths, and steps of all lengths alternate."""
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
    """Random order in which every run of classes x rows_per_class rows holds each class equally.

    Args:
        positions_N: rows of the epoch, as many of each class.
        label_ids_N: class of each of them.
    """
    shuffled = generator.permutation(len(positions_N))
    by_class = positions_N[shuffled[np.argsort(label_ids_N[shuffled], kind="stable")]].reshape(
        len(np.unique(label_ids_N)), -1
    )
    return np.concatenate(
        [
            by_class[:, start : start + rows_per_class].ravel()
            for start in range(0, by_class.shape[1], rows_per_class)
        ]
    )


SAMPLERS: dict[str, Callable[[Ints, Ints, int, np.random.Generator], Ints]] = {
    "group_by_length": order_by_length,
    "random": order_random,
    "sequential": order_sequential,
}
"""Order of the rows of an epoch by `training.train_sampling_strategy`; each run of rows_per_step rows forms a step."""


class StepBatchSampler(Sampler[list[int]]):
    """Micro-batches of one process, in the order of the optimizer steps.

    Args:
        positions: epoch -> rows that this epoch sees; their number is the same in every epoch.
        lengths_N: tokens of each row.
        rows_per_batch: rows of a micro-batch.
        batches_per_step: micro-batches of one process in an optimizer step (gradient accumulation).
        num_shards, shard: number of processes, and which one this is.
        drop_last: leave out the last step of an epoch if it lacks rows.
        balanced_label_ids_N: class of each row where every step holds every class equally, whatever the strategy; then a step has
            the largest multiple of the number of classes that fits.
    Raises:
        ConfigError: a step smaller than the number of classes.
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
    ) -> None:
        self.positions, self.lengths_N = positions, lengths_N
        self.strategy, self.seed, self.epoch = strategy, seed, 0
        self.rows_per_batch, self.batches_per_step = rows_per_batch, batches_per_step
        self.num_shards, self.shard, self.drop_last = num_shards, shard, drop_last
        self.num_rows = len(positions(0))
        self.balanced_label_ids_N = balanced_label_ids_N
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
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def _num_batches(self, rows_in_step: int) -> int:
        if rows_in_step == self.rows_per_step:
            return (
                self.batches_per_step
            )  # the Trainer takes so many for a step, also where balanced rows would fit into fewer
        return -(-rows_in_step // (self.rows_per_batch * self.num_shards))

    def __len__(self) -> int:
        whole, rest = divmod(self.num_rows, self.rows_per_step)
        return whole * self._num_batches(self.rows_per_step) + (
            0 if self.drop_last else self._num_batches(rest)
        )

    def steps(self) -> Iterator[Ints]:
        """Rows of each optimizer step of the epoch."""
        generator = stage_generator(self.seed, "order", self.epoch)
        positions = self.positions(self.epoch)
        if self.balanced_label_ids_N is not None:
            order = order_class_balanced(
                positions,
                self.balanced_label_ids_N[positions],
                self.rows_per_step // self.num_classes,
                generator,
            )
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
    """Raises ConfigError when an optimizer step cannot hold a row of every class."""
    if rows_per_batch * batches_per_step * num_processes < num_classes:
        room = f"{rows_per_batch} rows x {batches_per_step} micro-batches x {num_processes} process(es)"
        raise ConfigError(
            f"balance.method is 'class_balanced_batches' with {num_classes} classes, but an optimizer step holds {room}."
            " Raise training.per_device_train_batch_size or gradient_accumulation_steps."
        )


class Collator:
    """Rows to one padded batch of tensors, padded with the tokenizer's token on its side.

    Args:
        multiple: batches are padded to a multiple of so many tokens.
    Attributes:
        least: batches are padded to at least so many tokens.
    """

    least = 1

    def __init__(self, tokenizer: Any, multiple: int = 1) -> None:
        self.padding_ids = {
            "input_ids": tokenizer.pad_token_id or 0,
            "token_type_ids": tokenizer.pad_token_type_id,
        }
        self.pads_left, self.multiple = tokenizer.padding_side == "left", multiple

    def __call__(self, rows: dict[str, Array]) -> dict[str, Tensor]:
        """Input ids, attention mask, labels and what else the model takes, of rows as TokenisedRows gives them; `labels` may be missing."""
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
    """Tokens of one pass where none are asked for: on a CPU few, which then stay in its caches; on a GPU enough to fill it."""
    return 2_048 if torch.device(device).type == "cpu" else 16_384


def token_batches(
    lengths_N: Ints, tokens_per_batch: int, *, equal_lengths: bool = False
) -> list[Ints]:
    """Rows in batches of at most so many tokens, padding counted, but at least one row; the longest rows first, so that padding is rare.

    Args:
        equal_lengths: whether all rows of a batch have the same length, so that none is padded.
    """
    order = np.argsort(-lengths_N, kind="stable")
    batches, start = [], 0
    while start < len(order):
        length = int(lengths_N[order[start]])
        end = start + max(1, tokens_per_batch // max(1, length))
        if equal_lengths:
            end = min(
                end, start + int(np.searchsorted(-lengths_N[order[start:]], -length, side="right"))
            )
        batches.append(order[start:end])
        start = end
    return batches


def tokens_computed(lengths_B: list[int], most_runs: int) -> int:
    """Return the tokens that a device computes in a pass over rows of these lengths.

    Args:
        most_runs: stretches of equally long rows up to which no padding is computed, see `packing.runs_without_padding`.
    """
    runs = 1 + sum(length != before for before, length in pairwise(lengths_B))
    return sum(lengths_B) if runs <= most_runs else max(lengths_B) * len(lengths_B)


def pass_starts(
    lengths_B: list[int],
    tokens: int,
    *,
    most_runs: int = 0,
    equal_lengths: bool = False,
    at_least: int = 1,
) -> list[int]:
    """First row of each pass of a batch: consecutive rows of which at most so many tokens are computed, but at least one row.

    Args:
        most_runs: as of `tokens_computed`; 0 where padding is always computed.
        equal_lengths: whether all rows of a pass have the same length, so that none is padded.
        at_least: number of passes, reached by halving the longest ones; at most the number of rows.
    """
    starts, total, longest, runs = [0], 0, 0, 0
    for row, length in enumerate(lengths_B):
        size = row - starts[-1] + 1
        longest, total = max(longest, length), total + length
        is_new_run = row == 0 or length != lengths_B[row - 1]
        runs += is_new_run
        is_full = (total if runs <= most_runs else longest * size) > tokens
        if size > 1 and (is_full or (equal_lengths and is_new_run)):
            starts.append(row)
            total, longest, runs = length, length, 1
    while len(starts) < at_least:
        sizes = np.diff([*starts, len(lengths_B)])
        widest = int(sizes.argmax())
        starts.insert(widest + 1, starts[widest] + int(sizes[widest]) // 2)
    return starts


def cut_into_passes(
    batch: dict[str, Tensor], starts: list[int], *, multiple: int = 8, least: int = 1
) -> list[dict[str, Tensor]]:
    """Cut a padded batch into smaller ones of consecutive rows, each padded to its own longest row.

    Args:
        multiple: the widths are rounded up to a multiple of so many tokens.
        least: tokens of the narrowest batch.
    """
    mask_BL = batch["attention_mask"]
    num_rows, width = mask_BL.shape
    if len(starts) == 1:
        return [batch]
    is_left = bool(
        mask_BL[:, -1].all()
    )  # if the padding stands on the right all the same, no row has any
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
    """DataLoader that tells its StepBatchSampler the epoch and leaves torch's own generator alone."""

    def set_epoch(self, epoch: int) -> None:
        """Called by transformers.Trainer before each epoch."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]

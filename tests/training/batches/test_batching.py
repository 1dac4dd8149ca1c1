from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.tokens.tokenise import PADDING, TokenisedRows
from trainer.errors import ConfigError
from trainer.training.batches import packed_attention
from trainer.training.batches.batching import (
    SAMPLERS,
    Collator,
    StepBatchSampler,
    cut_into_passes,
    pass_starts,
    refuse_small_steps,
    token_batches,
    tokens_computed,
    tokens_per_pass,
)
from trainer.training.batches.packed_attention import attention_pads


def sampler(
    num_rows,
    batch,
    accumulation,
    shards=1,
    shard=0,
    strategy="group_by_length",
    epoch=0,
    drop_last=False,
    seed=5,
    label_ids=None,
    draws=None,
):
    lengths = np.random.default_rng(1).integers(3, 60, max(num_rows, 1))
    found = StepBatchSampler(
        lambda _: np.arange(num_rows),
        lengths,
        strategy=strategy,
        seed=seed,
        rows_per_batch=batch,
        batches_per_step=accumulation,
        num_shards=shards,
        shard=shard,
        drop_last=drop_last,
        balanced_label_ids_N=label_ids,
        draws_S=draws,
    )
    found.set_epoch(epoch)
    return found


def steps_of(shards):
    """Rows of each optimizer step as the Trainer of all processes together would see them."""
    batches = [list(shard) for shard in shards]
    accumulation, out = shards[0].batches_per_step, []
    for start in range(0, len(batches[0]), accumulation):
        rows = [
            row
            for b in batches
            for batch in b[start : start + accumulation]
            for row in batch
            if row != PADDING
        ]
        out.append(sorted(rows))
    return out


@settings(max_examples=60)
@given(
    num_rows=st.integers(1, 150),
    cut=st.sampled_from([(12, 1, 1), (1, 12, 1), (4, 3, 1), (3, 2, 2), (6, 1, 2), (1, 4, 3)]),
    strategy=st.sampled_from(sorted(SAMPLERS)),
)
def test_rows_of_a_step_do_not_depend_on_how_it_is_cut(num_rows, cut, strategy):
    batch, accumulation, shards = cut
    whole = steps_of([sampler(num_rows, 12, 1, strategy=strategy)])
    each = [sampler(num_rows, batch, accumulation, shards, n, strategy) for n in range(shards)]
    found = steps_of(each)
    assert found == whole
    numbers = [len(step) for step in whole]
    assert [each[0].rows_of_step(step) for step in range(2 * len(whole))] == numbers * 2
    assert Counter(row for step in whole for row in step) == Counter(range(num_rows))


@settings(max_examples=60)
@given(
    num_rows=st.integers(1, 150),
    batch=st.integers(1, 9),
    accumulation=st.integers(1, 4),
    shards=st.integers(1, 3),
    drop_last=st.booleans(),
)
def test_every_process_gets_as_many_batches_as_its_length_says(
    num_rows, batch, accumulation, shards, drop_last
):
    for shard in range(shards):
        found = sampler(num_rows, batch, accumulation, shards, shard, drop_last=drop_last)
        batches = list(found)
        assert len(batches) == len(found)
        assert all(0 < len(b) <= batch for b in batches)
        numbers = [len(step) for step in found.steps()]
        assert [found.rows_of_step(step) for step in range(len(numbers))] == numbers
        assert drop_last is False or PADDING not in [row for b in batches for row in b]


@pytest.mark.parametrize("strategy", ["group_by_length", "random"])
def test_epochs_and_seeds_differ_and_repeat(strategy):
    first = list(sampler(100, 8, 1, strategy=strategy))
    assert first == list(sampler(100, 8, 1, strategy=strategy))
    assert first != list(sampler(100, 8, 1, strategy=strategy, epoch=1))
    assert first != list(sampler(100, 8, 1, strategy=strategy, seed=6))


def test_sequential_keeps_the_order_of_the_file():
    assert steps_of([sampler(10, 4, 1, strategy="sequential")]) == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]


def test_grouping_by_length_leaves_less_padding_than_random_order():
    def padding(strategy):
        found = sampler(2000, 16, 1, strategy=strategy)
        return sum(
            found.lengths_N[rows].max() * len(rows) - found.lengths_N[rows].sum()
            for rows in found.steps()
        )

    assert padding("group_by_length") < 0.2 * padding("random")


@settings(max_examples=60)
@given(
    st.integers(2, 5),
    st.integers(1, 30),
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_every_step_holds_every_class_equally_on_any_number_of_processes(
    classes, rows_per_class, batch, accumulation, shards, epoch
):
    if batch * accumulation * shards < classes:
        return
    label_ids = np.random.default_rng(epoch).permutation(
        np.repeat(np.arange(classes), rows_per_class)
    )
    parts = [
        sampler(
            len(label_ids), batch, accumulation, shards, shard, epoch=epoch, label_ids=label_ids
        )
        for shard in range(shards)
    ]
    steps = steps_of(parts)
    assert sorted(row for step in steps for row in step) == list(range(len(label_ids)))
    for step in steps:
        assert len(set(np.bincount(label_ids[step], minlength=classes))) == 1
    assert all(len(list(part)) == len(part) for part in parts)
    assert steps == steps_of(
        [
            sampler(
                len(label_ids), batch * accumulation * shards, 1, label_ids=label_ids, epoch=epoch
            )
        ]
    )


@settings(max_examples=40)
@given(
    st.integers(2, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)
)
def test_every_step_draws_the_labels_evenly_however_it_is_cut(
    labels, each, batch, accumulation, shards
):
    draws = np.full(labels, each)
    cuts = [
        [
            sampler(labels * each, batch, accumulation, shards, s, draws=draws)
            for s in range(shards)
        ],
        [sampler(labels * each, batch * accumulation * shards, 1, draws=draws)],
    ]
    steps, whole = map(steps_of, cuts)
    assert steps == whole
    assert sorted(row for step in steps for row in step) == list(range(labels * each))
    for step in steps:
        assert np.ptp(np.bincount(np.array(step) // each, minlength=labels)) <= 2


def test_a_step_smaller_than_the_number_of_classes_is_refused():
    with pytest.raises(
        ConfigError,
        match=(
            r"with 8 classes, but an optimizer step holds 2 rows x 3 micro-batches x 1 "
            r"process\(es\). Raise training.per_device"
        ),
    ):
        refuse_small_steps(8, 2, 3, 1)
    refuse_small_steps(8, 2, 2, 2)


def rows_of(lengths, **columns):
    flat = {"input_ids": np.arange(10, 10 + sum(lengths), dtype=np.int32)} | columns
    return TokenisedRows(
        flat, np.r_[0, np.cumsum(lengths)], np.arange(len(lengths)), np.zeros(len(lengths), bool)
    )


def tokenizer(side):
    return SimpleNamespace(pad_token_id=7, pad_token_type_id=3, padding_side=side)


def test_rows_are_padded_on_the_tokenizers_side_and_a_row_that_fills_up_has_no_label():
    rows = rows_of([3, 1, 2], token_type_ids=np.array([0, 0, 1, 0, 0, 1], np.int32))
    right = Collator(tokenizer("right"))(rows.__getitems__([2, PADDING, 1]))
    assert right["input_ids"].tolist() == [[14, 15, 7], [10, 11, 12], [13, 7, 7]]
    assert right["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert right["token_type_ids"].tolist() == [[0, 1, 3], [0, 0, 1], [0, 3, 3]]
    assert right["labels"].tolist() == [2, -100, 1]
    left = Collator(tokenizer("left"), multiple=4)(rows.__getitems__([1, 2]))
    assert left["input_ids"].tolist() == [[7, 7, 7, 13], [7, 7, 14, 15]]
    assert left["attention_mask"].tolist() == [[0, 0, 0, 1], [0, 0, 1, 1]]


@settings(max_examples=60)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=80), tokens=st.integers(1, 300))
def test_batches_for_prediction_hold_every_row_once_within_their_tokens(lengths, tokens):
    batches = token_batches(np.array(lengths), tokens)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[row] for row in batch)
        assert padded <= tokens or len(batch) == 1
    longest = [max(lengths[row] for row in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)


@pytest.mark.parametrize("side", ["right", "left"])
@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    tokens=st.integers(1, 200),
    pads=st.booleans(),
    at_least=st.integers(1, 50),
    multiple=st.sampled_from([1, 8]),
)
def test_passes_hold_the_rows_of_the_batch_in_order_within_their_tokens(
    side, lengths, tokens, pads, at_least, multiple
):
    at_least = min(at_least, len(lengths))
    batch = Collator(tokenizer(side), multiple)(rows_of(lengths).__getitems__(range(len(lengths))))
    starts = pass_starts(lengths, tokens, pads=pads, at_least=at_least)
    passes = cut_into_passes(batch, starts)
    assert len(passes) == len(starts) >= at_least
    assert torch.cat([part["labels"] for part in passes]).tolist() == list(range(len(lengths)))
    found = torch.cat([part["input_ids"][part["attention_mask"].bool()] for part in passes])
    assert found.tolist() == list(range(10, 10 + sum(lengths)))
    for part in passes:
        own = part["attention_mask"].sum(1)
        assert len(own) == 1 or tokens_computed(own.tolist(), pads=pads) <= tokens
        assert len(passes) == 1 or part["attention_mask"].shape[1] < int(own.max()) + 8


def test_passes_are_as_few_as_the_tokens_allow():
    assert pass_starts([60, 60, 60], 120) == [0, 2]
    assert pass_starts([60, 60, 60], 100) == [0, 1, 2]
    assert pass_starts([60, 20, 20, 20], 120, pads=False) == [0]
    assert pass_starts([60, 20, 20, 20], 120) == [0, 2]
    assert pass_starts([60, 20, 20, 20], 120, pads=False, at_least=3) == [0, 1, 2]
    assert pass_starts([60, 60, 20, 20], 200, equal_lengths=True) == [0, 2]


def test_tokens_of_a_pass_are_those_that_the_device_computes(monkeypatch):
    one_long, gpu = [512] + [30] * 255, torch.device("cuda")
    assert attention_pads(torch.device("cpu"), torch.bfloat16)
    assert attention_pads(gpu, torch.float32)
    assert tokens_computed(one_long, pads=True) == 256 * 512
    assert len(pass_starts(one_long, 16_384)) == 2
    monkeypatch.setattr(packed_attention, "flash_fault", lambda device, dtype: None)
    assert not attention_pads(gpu, torch.bfloat16)
    assert tokens_computed(one_long, pads=False) == 512 + 255 * 30
    assert len(pass_starts(one_long, 16_384, pads=False)) == 1


def test_targets_as_wide_as_the_batch_are_not_cut_like_tokens():
    batch = {name: torch.ones(3, 8) for name in ("input_ids", "attention_mask", "labels")}
    batch["attention_mask"][:, 2:] = 0
    batch["input_ids"] = torch.ones(3, 16)
    batch["attention_mask"] = torch.cat([batch["attention_mask"], torch.zeros(3, 8)], 1)
    assert [tuple(part["labels"].shape) for part in cut_into_passes(batch, [0, 1])] == [
        (1, 8),
        (2, 8),
    ]
    assert [tuple(part["input_ids"].shape) for part in cut_into_passes(batch, [0, 1])] == [
        (1, 8),
        (2, 8),
    ]


def test_a_cpu_takes_smaller_passes_than_a_gpu():
    assert tokens_per_pass("cpu") < tokens_per_pass("cuda")

"""Prepare data in one call, as `training_run.prepare` does without synthetic rows."""

from trainer.data.prepare import balance_splits, read_splits


def prepare_data(data, split, balance, loss, *, seed, cache_dir):
    clean, splits = read_splits(data, split, balance, seed=seed, cache_dir=cache_dir)
    return balance_splits(clean, splits, balance, loss, seed=seed)

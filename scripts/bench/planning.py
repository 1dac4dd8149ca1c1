"""Measure time and memory of choosing the training rows among 10 million, against imbalanced-learn.

usage: python scripts/bench/planning.py [--rows 10000000]

The labels are of five classes with shares 0.9, 0.08, 0.015, 0.004 and 0.001. Each side runs in its
own process, so that its peak memory is its own. The peak includes the labels and row keys (16 bytes
a row) and the imports. Results: scripts/bench/README.md.
"""

import argparse
import multiprocessing
import resource
import time
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from trainer.data.balancing.balance import METHODS, plan_balance

SHARES = [0.9, 0.08, 0.015, 0.004, 0.001]
LABELS = ["a", "b", "c", "d", "e"]


def rows(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Label ids and row keys."""
    generator = np.random.default_rng(0)
    return generator.choice(5, size, p=SHARES), generator.permutation(size).astype(np.uint64)


def ours(method: str, size: int) -> tuple[float, float, int]:
    """Seconds, peak MiB, rows drawn."""
    warnings.simplefilter("ignore")
    label_ids_N, keys_N = rows(size)
    start = time.perf_counter()
    drawn = plan_balance(label_ids_N, keys_N, labels=LABELS, method=method, seed=0).positions()
    return time.perf_counter() - start, peak_mib(), len(drawn)


def theirs(method: str, size: int) -> tuple[float, float, int]:
    """The same of imbalanced-learn's random sampler."""
    from imblearn.over_sampling import RandomOverSampler
    from imblearn.under_sampling import RandomUnderSampler

    label_ids_N, _ = rows(size)
    sampler = {"oversample": RandomOverSampler, "undersample": RandomUnderSampler}[method](
        random_state=0
    )
    start = time.perf_counter()
    sampler.fit_resample(np.arange(size)[:, None], label_ids_N)
    return time.perf_counter() - start, peak_mib(), len(sampler.sample_indices_)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(function: object, *arguments: object) -> tuple[float, float, int]:
    """Result of a call in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000_000)
    size = parser.parse_args().rows
    print(
        "| method | rows drawn | seconds | peak MiB | imbalanced-learn seconds | peak MiB | "
        "times faster |\n" + "| --- |" + " ---: |" * 6
    )
    for method in METHODS:
        seconds, memory, drawn = alone(ours, method, size)
        cells = [method, f"{drawn:,}", f"{seconds:.1f}", f"{memory:,.0f}", "", "", ""]
        if method in ("oversample", "undersample"):
            their_seconds, their_memory, their_rows = alone(theirs, method, size)
            assert their_rows == drawn
            cells[4:] = [
                f"{their_seconds:.1f}",
                f"{their_memory:,.0f}",
                f"{their_seconds / seconds:.1f}",
            ]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

"""Check that the memory of `data.streaming` depends on the rows chosen, not on the rows read.

usage: python scripts/bench/streaming.py [--rows 1000000 10000000] [--smallest 2000] [--folder DIR]
quick: python scripts/bench/streaming.py --small

The script writes sharded Parquet of three classes, of which the smallest has the same number of
rows at every size, and selects rows with `balance.method: undersample` in a fresh process for each
size. `ordinary` reads the same files without streaming. Peak memory is the largest resident set of
the process, including imports and touched pages of memory-mapped files. Seconds leave out imports.
Disk is the largest size of the cache folder while rows are selected. Files go to a temporary folder
and are deleted; 10^7 rows take 1 GB.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SHARD_ROWS = 250_000
CHUNK_ROWS = 50_000
WORDS = 5_000


def generate(folder: Path, rows: int, smallest: int) -> None:
    """Shards of texts of 4 to 24 words; 1 % of the rows repeat an earlier text of their chunk."""
    generator = np.random.default_rng(0)
    words = pa.array([f"w{number:x}" for number in generator.permutation(1 << 20)[:WORDS]])
    label_ids = np.where(np.arange(rows) < smallest, 2, np.arange(rows) % 10 // 7)  # 70 % and 30 %
    label_ids = generator.permutation(label_ids)
    names = pa.array(["approve", "review", "fraud"])
    for shard, start in enumerate(range(0, rows, SHARD_ROWS)):
        end = min(rows, start + SHARD_ROWS)
        with pq.ParquetWriter(
            folder / f"part-{shard:05d}.parquet",
            pa.schema([("text", pa.string()), ("label", pa.string())]),
        ) as writer:
            for first in range(start, end, CHUNK_ROWS):
                size = min(CHUNK_ROWS, end - first)
                lengths = generator.integers(4, 24, size)
                offsets = pa.array(np.r_[0, np.cumsum(lengths)].astype(np.int32))
                lists = pa.ListArray.from_arrays(
                    offsets, words.take(pa.array(generator.integers(0, WORDS, lengths.sum())))
                )
                places, ids = np.arange(size), label_ids[first : first + size]
                common = np.flatnonzero(ids != 2)  # the smallest class has no repeats
                copied = common[-size // 100 :]
                places[copied], ids[copied] = common[: len(copied)], ids[common[: len(copied)]]
                text = pc.binary_join(lists, " ").take(pa.array(places))
                writer.write_table(pa.table({"text": text, "label": names.take(pa.array(ids))}))


def select(folder: Path, cache: Path, *, streaming: bool) -> None:
    """One selection; prints its figures as JSON."""
    from trainer.config.sections.balancing import BalanceSection, LossSection
    from trainer.config.sections.data import DataSection
    from trainer.data.prepare import balance_splits, read_splits

    data, balance = (
        DataSection(
            source=f"{folder}/*.parquet", streaming=streaming, streaming_evaluation_rows=2_000
        ),
        BalanceSection(method="undersample"),
    )
    done, most = threading.Event(), [0]
    watcher = threading.Thread(target=_watch, args=(cache, done, most))
    watcher.start()
    start = time.perf_counter()
    clean, splits = read_splits(data, None, balance, seed=0, cache_dir=cache)
    prepared = balance_splits(clean, splits, balance, LossSection(), seed=0)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    status = Path("/proc/self/status").read_text(
        encoding="utf-8"
    )  # Linux; getrusage would count what the parent held when it forked
    peak = (
        int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
        * 1024
    )
    print(
        json.dumps(
            {
                "seconds": seconds,
                "peak": peak,
                "disk": most[0],
                "drawn": len(prepared.plan.positions()),
                "labels": len(prepared.labels),
            }
        )
    )


def _watch(cache: Path, done: threading.Event, most: list[int]) -> None:
    while not done.wait(0.2):
        total = 0
        for path in cache.rglob("*"):
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue
        most[0] = max(most[0], total)


def main() -> None:
    """Generate, select in a process for each size and side, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--smallest", type=int, default=2_000)
    parser.add_argument("--small", action="store_true", help="50,000 and 500,000 rows")
    parser.add_argument("--folder", type=Path)
    parser.add_argument(
        "--select", nargs=3, metavar=("FOLDER", "CACHE", "SIDE"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.select:
        folder, cache, side = arguments.select
        select(Path(folder), Path(cache), streaming=side == "streaming")
        return
    print(
        "| rows read | side | rows drawn | peak memory | disk of the cache | seconds | rows a "
        "second |\n| ---: | --- | ---: | ---: | ---: | ---: | ---: |"
    )
    for rows in [50_000, 500_000] if arguments.small else arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            folder = Path(name) / "shards"
            folder.mkdir()
            generate(folder, rows, arguments.smallest)
            for side in ("streaming", "ordinary"):
                cache = Path(name) / side
                cache.mkdir()
                command = [sys.executable, __file__, "--select", str(folder), str(cache), side]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found = json.loads(done.stdout.splitlines()[-1])
                sizes = f"{found['peak'] / 2**20:,.0f} MiB | {found['disk'] / 2**20:,.0f} MiB"
                print(
                    f"| {rows:,} | {side} | {found['drawn']:,} | {sizes} | "
                    f"{found['seconds']:.1f} | {rows / found['seconds']:,.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

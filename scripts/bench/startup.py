"""Measure the seconds until the commands answer, and from the launch to the first training step.

usage: python scripts/bench/startup.py [--repeats 5] [--config configs/quickstart.yaml]

The other side is a stock Trainer on the same rows. Every figure is the median of fresh processes,
with the smallest and the largest; all cases run by turns. The stock script reads the rows that
`equipoise split` wrote, already cleaned, split and balanced, and tokenises them with datasets.map;
our side starts from the raw file. Cold means an empty HF_HOME, warm one that was used before. The
model and the data of the config must be on this machine, and its rows have one label.
Results: scripts/bench/README.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
PHASES = ["libraries", "data", "model", "first step"]
LAUNCH = [
    "-m",
    "accelerate.commands.launch",
    "--num_processes",
    "1",
    "--num_machines",
    "1",
    "--mixed_precision",
    "no",
    "--dynamo_backend",
    "no",
]


def ours(config: str, folder: Path, mark: Callable[[str], None]) -> None:
    """`equipoise train` to the end of its first step, in this process."""
    from trainer import cli
    from trainer.runs import preparation, training_run

    prepare, tokenise_splits = training_run.prepare, preparation.tokenise_splits

    def marked_prepare(*arguments: object) -> object:
        mark("libraries")
        stop_after_first_step(mark)
        return prepare(*arguments)

    def marked_tokenise(*arguments: object) -> object:
        tokens = tokenise_splits(*arguments)
        mark("data")
        return tokens

    training_run.prepare, preparation.tokenise_splits = marked_prepare, marked_tokenise
    sys.argv = [
        "equipoise",
        "train",
        "--config",
        config,
        "--resume",
        "never",
        "--set",
        f"run.output_dir={folder / 'runs'}",
    ]
    cli.main()


def stock(config: str, folder: Path, mark: Callable[[str], None]) -> None:
    """Run the shortest script of transformers' documentation on the same rows."""
    from datasets import load_dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    mark("libraries")
    stop_after_first_step(mark)
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    rows = load_dataset(
        "json",
        data_files={split: str(folder / "rows" / name) for split, name in about["files"].items()},
    )
    ids = {label: label_id for label_id, label in enumerate(sorted(rows["train"].unique("label")))}
    tokenizer = AutoTokenizer.from_pretrained(about["model"])

    def encode(batch: dict[str, list[str]]) -> dict[str, object]:
        encoded = tokenizer(batch["text"], truncation=True, max_length=about["max_length"])
        return {**encoded, "labels": [ids[label] for label in batch["label"]]}

    tokens = rows.map(encode, batched=True, remove_columns=rows["train"].column_names)
    mark("data")
    model = AutoModelForSequenceClassification.from_pretrained(about["model"], num_labels=len(ids))
    arguments = TrainingArguments(
        output_dir=str(folder / "stock"),
        per_device_train_batch_size=about["batch_size"],
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    Trainer(
        model,
        arguments,
        DataCollatorWithPadding(tokenizer),
        tokens["train"],
        tokens["validation"],
        tokenizer,
    ).train()


def stop_after_first_step(mark: Callable[[str], None]) -> None:
    """Mark the start and the end of the first step of any Trainer, then exit."""
    from transformers.trainer_callback import CallbackHandler

    begin = CallbackHandler.on_step_begin

    def marked_begin(*arguments: object) -> object:
        mark("model")
        return begin(*arguments)

    def marked_end(*_: object) -> None:
        mark("first step")
        os._exit(0)

    CallbackHandler.on_step_begin, CallbackHandler.on_step_end = marked_begin, marked_end


def child(side: str, config: str, folder: Path) -> None:
    """One side in this process; writes the seconds at the end of each phase to marks.json."""
    launched, marks = float(os.environ["STARTUP_LAUNCHED"]), {}

    def mark(phase: str) -> None:
        marks[phase] = time.time() - launched
        (folder / "marks.json").write_text(json.dumps(marks), encoding="utf-8")

    {"ours": ours, "stock": stock}[side](config, folder, mark)


def answer_seconds(arguments: list[str], exit_code: int) -> float:
    """Seconds of a whole process."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    assert done.returncode == exit_code, done.stderr
    return seconds


def phase_seconds(
    launcher: list[str], side: str, config: str, folder: Path, home: Path
) -> list[float]:
    """Return the seconds of each phase of one side in a fresh process, to the end of the first
    step."""
    (folder / "marks.json").unlink(missing_ok=True)
    command = [
        sys.executable,
        *launcher,
        __file__,
        "--child",
        side,
        "--config",
        config,
        "--output",
        str(folder),
    ]
    environment = os.environ | {"HF_HOME": str(home), "STARTUP_LAUNCHED": str(time.time())}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ends = [0.0, *json.loads((folder / "marks.json").read_text(encoding="utf-8")).values()]
    return [end - start for start, end in pairwise(ends)]


def write_rows(config: str, folder: Path) -> None:
    """The rows that the stock script reads, and what else it has to know."""
    from trainer import load_config
    from trainer.training.models.model_folder import resolve_name

    loaded = load_config(config)
    command = [
        sys.executable,
        "-m",
        "trainer",
        "split",
        "--config",
        config,
        "--output",
        str(folder / "rows"),
    ]
    subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"HF_HOME": str(folder / "split")},
        capture_output=True,
        check=True,
    )
    about = {
        "model": resolve_name(loaded.model.name),
        "max_length": loaded.model.max_length,
        "batch_size": loaded.training_values["per_device_train_batch_size"],
        "files": {
            "train": "train_balanced.jsonl",
            "validation": "validation.jsonl",
            "test": "test.jsonl",
        },
    }
    (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")


def measure(config: str, folder: Path, repeats: int) -> None:
    """All cases in turn, `repeats` times, and the two tables."""
    write_rows(config, folder)
    answers = {
        "`import trainer`": (["-c", "import trainer"], 0),
        "`equipoise --help`": (["-m", "trainer", "--help"], 0),
        "a config error": (["-m", "trainer", "train", "--config", config, "--set", "run.sed=1"], 2),
        "`equipoise train --check`": (["-m", "trainer", "train", "--config", config, "--check"], 0),
        "to compare: `import torch`": (["-c", "import torch"], 0),
        "to compare: `from transformers import Trainer`": (
            ["-c", "from transformers import Trainer"],
            0,
        ),
    }
    starts = {
        ("ours", "cold"): ([], "ours"),
        ("stock", "cold"): ([], "stock"),
        ("ours", "warm"): ([], "ours"),
        ("ours, `accelerate launch`", "warm"): (LAUNCH, "ours"),
        ("stock", "warm"): ([], "stock"),
    }
    answered: dict[str, list[float]] = {name: [] for name in answers}
    started: dict[tuple[str, str], list[list[float]]] = {case: [] for case in starts}
    warm = folder / "warm"
    for side in ("ours", "stock"):
        phase_seconds([], side, config, folder, warm)
    for repeat in range(repeats):
        for name, (arguments, exit_code) in answers.items():
            answered[name].append(answer_seconds(arguments, exit_code))
        for case, (launcher, side) in starts.items():
            home = warm if case[1] == "warm" else folder / f"cold-{side}-{repeat}"
            started[case].append(phase_seconds(launcher, side, config, folder, home))
    print("| command | seconds |\n| --- | ---: |")
    for name, seconds in answered.items():
        print(f"| {name} | {median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f}) |")
    print(
        f"\n| launch to first step | cache | {' | '.join(PHASES)} | seconds | stock / this "
        f"|\n| --- | --- |{' ---: |' * (len(PHASES) + 2)}"
    )
    for (side, cache), runs in started.items():
        totals = [sum(phases) for phases in runs]
        ratio = median(sum(phases) for phases in started["stock", cache]) / median(totals)
        cells = [
            *(f"{median(column):.2f}" for column in zip(*runs, strict=True)),
            f"{median(totals):.2f} ({min(totals):.2f} to {max(totals):.2f})",
        ]
        print(f"| {side} | {cache} | {' | '.join(cells)} | {ratio:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="fresh processes of each case")
    parser.add_argument("--config", default=str(ROOT / "configs/quickstart.yaml"))
    parser.add_argument("--child", choices=["ours", "stock"], help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.config, Path(arguments.output))
        return
    with tempfile.TemporaryDirectory(prefix="startup-") as folder:
        measure(arguments.config, Path(folder), arguments.repeats)


if __name__ == "__main__":
    main()

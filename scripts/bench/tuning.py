"""Measure what a search of settings gains on test rows, and what it costs.

usage: python scripts/bench/tuning.py --output DIR [--emotion FOLDER] [--mode head] [--trials 20]
           [--seeds 3]

For each data set and seed: train the config as it is, search with `equipoise tune`, train its
best.yaml, and evaluate both models on the test rows, which the search cannot reach. The data sets
are R8 cut to 2,500 rows and TweetEval emotion, as in methods.py. `--mode head` fits heads on the
frozen encoder of MiniLM; `full` trains it. An interrupted benchmark resumes.
"""

import argparse
import json
import time
from pathlib import Path

from methods import MODEL, R8, data_sets

from trainer import load_config, train
from trainer.tuning.tune import BEST_NAME, JSON_NAME, tune


def values_of(arguments: argparse.Namespace, name: str, data: dict, seed: int) -> dict[str, dict]:
    """The config of a data set and seed, with defaults but for the model."""
    values = {
        "run": {"name": f"{name}-seed{seed}", "output_dir": str(arguments.output), "seed": seed},
        "model": MODEL | {"max_length": 64, "mode": arguments.mode},
        "data": data,
        "tune": {"trials": arguments.trials},
    }
    if data["train"] == R8["train"]:  # it has no validation rows of its own
        values["split"] = {"train": 0.8, "validation": 0.2}
    return values


def trained(config: object) -> tuple[float, float]:
    """Macro F1 of the trained model on test, and the seconds that it took."""
    begin = time.perf_counter()
    result = train(config)  # type: ignore[arg-type]
    return result.metrics["test"]["macro_f1"], time.perf_counter() - begin


def row(arguments: argparse.Namespace, name: str, data: dict, seed: int) -> list[str]:
    """A line of the table."""
    config = load_config(values_of(arguments, name, data, seed))
    as_it_is, seconds = trained(config)
    folder = tune(config)
    result = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))
    best, _ = trained(str(folder / BEST_NAME))
    held_out = result["held_out"]["strategies"]
    gain = [each["figures"]["macro_f1"]["mean"] for each in held_out.values()]
    return [
        name,
        str(seed),
        f"{as_it_is:.3f}",
        f"{best:.3f}",
        f"{best - as_it_is:+.3f}",
        f"{gain[-1] - gain[0]:+.3f}",
        f"{result['best']} of {len(result['trials'])}",
        f"{result['seconds'] / 60:.1f}",
        f"{seconds / 60:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--emotion")
    parser.add_argument("--mode", choices=("head", "full"), default="head")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    chosen = data_sets(arguments.emotion)
    sets = {"R8": chosen["R8, 2,000 rows"], "emotion": chosen["emotion"]}
    rows = [
        row(arguments, name, data, seed)
        for name, data in sets.items()
        for seed in range(1, arguments.seeds + 1)
    ]
    titles = ["data", "seed", "as it is", "best", "gain on test", "gain on held-out rows"]
    titles += ["best trial", "minutes of the search", "minutes of one training"]
    for cells in [titles, ["---"] * 2 + ["---:"] * (len(titles) - 2), *rows]:
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

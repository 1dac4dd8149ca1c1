"""Measure the effect of class weights on Reuters R8 (imbalance ratio 69), with few and all rows.

usage: python scripts/bench/class_weights.py [--seeds 3] [--output DIR]

Both sides have the same rows, steps, seeds and heads; only loss.class_weights differs. The script
prints macro F1 on the untouched 2,189 test rows for each seed, and the mean difference with its
smallest and largest value. Results: scripts/bench/README.md.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from trainer import load_config
from trainer.runs import training_run

CONFIG = Path(__file__).resolve().parents[2] / "configs/topics.yaml"
SETTINGS = {
    "2,000 training rows, 1 epoch": [
        "data.limit=2500",
        "training.num_train_epochs=1",
    ],  # 20 % of 2,500 validate
    "all training rows, 2 epochs": ["training.num_train_epochs=2"],
}


def macro_f1(name: str, overrides: list[str], output: str) -> float:
    path = Path(output) / name / "metrics.json"
    if not path.exists():  # a bench that was stopped goes on where it was
        training_run.train(
            load_config(str(CONFIG), [*overrides, f"run.name={name}", f"run.output_dir={output}"])
        )
    return json.loads(path.read_text(encoding="utf-8"))["test"]["macro_f1"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--output", default=None, help="folder of the runs; left out: a temporary one"
    )
    arguments = parser.parse_args()
    output = arguments.output or tempfile.mkdtemp(prefix="class_weights-")
    lines = [
        "| setting | seed | none | balanced | difference |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for number, (setting, overrides) in enumerate(SETTINGS.items()):
        differences = []
        for seed in range(arguments.seeds):
            scores = [
                macro_f1(
                    f"setting{number}-seed{seed}-{weights}",
                    [*overrides, f"run.seed={seed}", f"loss.class_weights={weights}"],
                    output,
                )
                for weights in ("none", "balanced")
            ]
            differences.append(scores[1] - scores[0])
            lines.append(
                f"| {setting} | {seed} | {scores[0]:.3f} | {scores[1]:.3f} | "
                f"{differences[-1]:+.3f} |"
            )
        spread = f"{min(differences):+.3f} to {max(differences):+.3f}"
        lines.append(f"| {setting} | mean | | | {statistics.mean(differences):+.3f} ({spread}) |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

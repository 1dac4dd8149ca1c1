"""Compare MLSMOTE with other ways of balancing several labels, on a frozen encoder.

usage: python scripts/bench/mlsmote.py --output DIR [--data reuters,tactics] [--seeds 3]
           [--train FILE] [--test FILE] [--tactics FILE]

MLSMOTE (Charte et al. 2015, https://doi.org/10.1016/j.knosys.2015.07.019) adds one synthetic row
for each row of each minority label, in the space of the embeddings. Minority labels are rarer than
the mean label: the ratio of the largest count to their own is above the mean of these ratios. The
synthetic row lies at a random place between the row and one of its 5 nearest rows of that label. It
gets the labels that more than half of the row and its neighbours have.

Reuters is described in long_tail.py; the tactics are the rows of configs/tactics.yaml, which
scripts/tactics.py writes. The final layer is fitted by L-BFGS with binary cross-entropy, and the
strength of its penalty is chosen by micro F1 on validation. Test is evaluated with one common
threshold and with one threshold for each label, both fitted on validation.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
from long_tail import LIMITS, MODEL, RULES, Figures, figures, line
from sklearn.neighbors import NearestNeighbors

from trainer import TrainerError, train
from trainer.evaluation.frequency_groups import NAMES
from trainer.runs import trainers
from trainer.training.frozen.head import HeadFit

METHODS: dict[str, dict[str, dict]] = {
    "none": {},
    "positive weights": {"loss": {"class_weights": "balanced"}},
    "MLSMOTE": {},
}
NEIGHBOURS = 5


def mlsmote(
    features_NH: np.ndarray, targets_NC: np.ndarray, *, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The rows, with the synthetic rows appended."""
    counts_C = targets_NC.sum(axis=0)
    ratio_C = counts_C.max() / np.maximum(counts_C, 1)
    is_minority_C = ratio_C > ratio_C[counts_C > 0].mean()
    features, targets = [features_NH], [targets_NC]
    for label in np.flatnonzero(is_minority_C & (counts_C > 1)):
        bag = np.flatnonzero(targets_NC[:, label])
        size = min(NEIGHBOURS, len(bag) - 1)
        search = NearestNeighbors(n_neighbors=size).fit(features_NH[bag])
        near_NK = bag[search.kneighbors(return_distance=False)]  # without the row itself
        towards_N = near_NK[np.arange(len(bag)), generator.integers(size, size=len(bag))]
        share_NH = generator.random((len(bag), features_NH.shape[1]), np.float32)
        features.append(features_NH[bag] + share_NH * (features_NH[towards_N] - features_NH[bag]))
        votes_NC = targets_NC[bag] + targets_NC[near_NK].sum(axis=1)
        targets.append((2 * votes_NC > size + 1).astype(targets_NC.dtype))
    return np.concatenate(features), np.concatenate(targets)


def values_of(arguments: argparse.Namespace, data: str, method: str, seed: int) -> dict[str, dict]:
    """The config of a run."""
    name = f"{data}-{method.replace(' ', '-')}-seed{seed}"
    if data == "reuters":
        source = {"train": str(arguments.train), "test": str(arguments.test)}
        rows: dict[str, dict] = {
            "data": source | {"label_column": "topics"},
            "split": {"train": 0.9, "validation": 0.1, "rare_classes": "keep"},
        }
    else:
        rows = {
            "data": {
                "source": str(arguments.tactics),
                "label_column": "labels",
                "group_column": "group",
            },
            "split": {"train": 0.7, "validation": 0.15, "test": 0.15},
        }
    return {
        "run": {"name": name, "output_dir": str(arguments.output), "seed": seed},
        "model": {"name": MODEL, "max_length": 128, "mode": "head"},
        "training": {"metric_for_best_model": "micro_f1"},
        "report": {"groups": LIMITS, "show_texts": False},
        **rows,
        **METHODS[method],
    }


def fit_of(method: str, seed: int) -> Callable[..., HeadFit]:
    """What builds the fit of a head; for MLSMOTE with synthetic rows."""
    if method != "MLSMOTE":
        return HeadFit
    add = partial(mlsmote, generator=np.random.default_rng(seed))
    return lambda **given: HeadFit(**given | {"synthesise": add})


def print_table(rule: str, found: dict[str, list[Figures]]) -> None:
    """Print micro/macro F1 of each method: the mean over the seeds, and the range of macro F1."""
    print(f"\n{rule}:\n")
    columns = [name for name in ("total", *NAMES) if any(name in f[0] for f in found.values())]
    print(line(["method", *columns, "macro F1 from ... to"]))
    print(line(["---", *["---:"] * (len(columns) + 1)]))
    for method, seeds in found.items():
        means = [np.mean([scores[name] for scores in seeds], axis=0) for name in columns]
        macro = [scores["total"][1] for scores in seeds]
        cells = ["/".join(f"{value:.2f}" for value in pair) for pair in means]
        print(line([method, *cells, f"{min(macro):.2f} to {max(macro):.2f}"]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--data", default="reuters,tactics")
    parser.add_argument("--train", type=Path, default=Path("data/reuters90-train.jsonl.gz"))
    parser.add_argument("--test", type=Path, default=Path("data/reuters90-test.jsonl.gz"))
    parser.add_argument("--tactics", type=Path, default=Path("data/tactics.jsonl"))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    for data in arguments.data.split(","):
        found: dict[str, list[Figures]] = {method: [] for method in METHODS}
        for seed in range(arguments.seeds):
            for method, seeds in found.items():
                with patch.object(trainers, "HeadFit", fit_of(method, seed)):
                    try:
                        folder = train(values_of(arguments, data, method, seed)).folder
                    except TrainerError as error:
                        sys.exit(str(error))
                seeds.append(figures(Path(folder)))
        print(f"\n## {data}, {arguments.seeds} seeds")
        for rule in RULES:
            print_table(rule, {method: [of[rule] for of in s] for method, s in found.items()})


if __name__ == "__main__":
    main()

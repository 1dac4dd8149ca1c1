"""Every balancing method on two real data sets, with the same rows, seeds and number of steps, on untouched test rows.

usage: python scripts/bench/methods.py --output DIR [--emotion FOLDER] [--seeds 3] [--only TEXT] [--part 1/2]

R8 cut to 2,000 training rows (500 validate) and TweetEval emotion (3,257 rows, own validation); MiniLM-L6, batch 32, the
same number of optimizer steps for every method that trains the encoder. FOLDER holds the emotion data as
train.jsonl, validation.jsonl and test.jsonl (text, label); left out: cardiffnlp/tweet_eval from the Hub. A bench that was stopped goes on
where it was; several may run at once on parts of the work (--part 1/2, --part 2/2), then one without --part prints the table.
Results: scripts/bench/README.md.
"""

import argparse
import json
import statistics
from pathlib import Path

from trainer import load_config, pipeline

CONFIG = Path(__file__).resolve().parents[2] / "configs/topics.yaml"
STEPS = 100
COMMON = [
    f"training={{max_steps: {STEPS}, learning_rate: 1.0e-4, per_device_train_batch_size: 32, eval_strategy: 'no', save_strategy: 'no',"
    " load_best_model_at_end: false, warmup_steps: 10}",
    "model.max_length=64",
    "loss={}",
    "balance={}",
]
METHODS: dict[str, list[str]] = {
    "none": ["decision={prior: uniform, temperature: true}"],
    "undersample": ["balance={method: undersample, resample_each_epoch: true}", "decision={prior: natural, temperature: true}"],
    "oversample": ["balance={method: oversample}"],
    "floor 0.1": ["balance={method: floor, min_share: 0.1}"],
    "power 0.5": ["balance={method: power}"],
    "class-balanced batches": ["balance={method: class_balanced_batches}"],
    "weights balanced": ["loss={class_weights: balanced}", "decision={prior: natural, temperature: true}"],
    "weights sqrt": ["loss={class_weights: sqrt}"],
    "weights effective number": ["loss={class_weights: effective_number}"],
    "focal": ["loss={name: focal}"],
    "logit adjusted": ["loss={name: logit_adjusted}", "decision={prior: natural, temperature: true}"],
    "none, thresholds": ["decision={thresholds: f1}"],
    "LoRA, weights balanced": ["model.mode=lora", "loss={class_weights: balanced}", "training.learning_rate=1e-3"],
    "head, none": ["model.mode=head"],
    "head, weights balanced": ["model.mode=head", "loss={class_weights: balanced}"],
    "head, SMOTE": ["model.mode=head", "balance={method: smote}"],
    "head, borderline SMOTE": ["model.mode=head", "balance={method: borderline_smote}"],
    "head, ADASYN": ["model.mode=head", "balance={method: adasyn}"],
}
SAME_TRAINING = {"none, thresholds": "none"}
"""Methods that only decide otherwise after the training of another."""
COLUMNS = ("macro_f1", "minority_recall", "accuracy", "ece")


def data_sets(emotion: str | None) -> dict[str, list[str]]:
    """Overrides of configs/topics.yaml for each data set."""
    hub = "{train: cardiffnlp/tweet_eval, validation: cardiffnlp/tweet_eval, test: cardiffnlp/tweet_eval, subset: emotion}"
    files = f"{{train: {emotion}/train.jsonl, validation: {emotion}/validation.jsonl, test: {emotion}/test.jsonl}}"
    return {"R8, 2,000 rows": ["data.limit=2500"], "emotion": [f"data={files if emotion else hub}"], "R8, all rows": []}


def train(folder: Path, overrides: list[str]) -> dict:
    """metrics.json of a run, trained unless it is there."""
    path = folder / "metrics.json"
    if not path.exists():
        pipeline.train(load_config(str(CONFIG), [*COMMON, *overrides, f"run.name={folder.name}", f"run.output_dir={folder.parent}"]))
    return json.loads(path.read_text(encoding="utf-8"))


def figures(metrics: dict, results: dict) -> dict[str, float]:
    """The columns of the table from one split's results."""
    return {name: results[name] for name in COLUMNS if name in results} | {"minority_recall": results["per_class"][metrics["minority_label"]]["recall"]}


def runs(arguments: argparse.Namespace) -> list[tuple[str, str, int, list[str]]]:
    """(data set, method, seed, overrides) of every training of the table, cheap ones last."""
    chosen = [
        (data, method, seed, [*where, *what])
        for seed in range(arguments.seeds)
        for data, where in data_sets(arguments.emotion).items()
        for method, what in METHODS.items()
        if arguments.only in f"{data}: {method}" and (data != "R8, all rows" or method == "weights balanced")
    ]
    number, parts = map(int, arguments.part.split("/"))
    return chosen[number - 1 :: parts]


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--emotion", default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--part", default="1/1")
    arguments = parser.parse_args()
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for data, method, seed, overrides in runs(arguments):
        name = "-".join([*data.replace(",", "").split(), *method.replace(",", "").split(), f"seed{seed}"])
        steps = ["training.max_steps=274"] if data == "R8, all rows" else []
        metrics = train(arguments.output / name, [*overrides, *steps, f"run.seed={seed}"])
        found.setdefault((data, method), []).append(figures(metrics, metrics["test"]))
        decided = metrics.get("decision", {}).get("test")
        if decided:
            found.setdefault((data, f"{method} -> decision"), []).append(figures(metrics, decided))
    print(line(["data", "method", *(name.replace("_", " ") for name in COLUMNS)]), line(["---", "---", *["---:"] * len(COLUMNS)]), sep="\n")
    for (data, method), rows in found.items():
        cells = [f"{statistics.mean(r[n] for r in rows):.3f} ({min(r[n] for r in rows):.3f} to {max(r[n] for r in rows):.3f})" for n in COLUMNS]
        print(line([data, method, *cells]))


if __name__ == "__main__":
    main()

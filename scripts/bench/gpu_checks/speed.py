"""How fast training and prediction are, beside the stock Trainer and a padded loop."""

import copy
import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from gpu_checks.material import Bench, Failed, Padding, build, our_trainer, random_rows, relative
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.training.batches.batching import Collator

TABLE = "speed.md"
HEAD = (
    "| model | rows | side | rows/s | peak MiB | against stock bf16 |\n| --- | --- | --- | "
    "---: | ---: | ---: |\n"
)
SIDES = ("stock bf16", "ours", "ours padded", "stock float32")
ROWS = {"tweets": (28, 128, 32), "mixed": (60, 512, 32), "tweets, batch 256": (28, 128, 256)}
"""(typical tokens, most tokens, rows of a step)."""
MODELS = ("distilbert", "bert-base", "modernbert-base")


class Clock(TrainerCallback):
    """Seconds of the steps behind the first ones, which warm up."""

    def __init__(self, bench: Bench, warm_up: int) -> None:
        self.bench, self.warm_up, self.seconds = bench, warm_up, 0.0

    def on_step_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        """Start once."""
        if state.global_step == self.warm_up:
            self.bench.wait()
            self.start = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop once the device has done its work."""
        self.bench.wait()
        self.seconds = time.perf_counter() - self.start


def check_speed(bench: Bench) -> str:
    """Compare rows a second and peak memory of training with the stock Trainer, by turns."""
    path = bench.folder / TABLE
    path.write_text(HEAD, encoding="utf-8")
    longest_side, num_lines = 0.0, 0
    for kind, (typical, longest, batch) in list(ROWS.items())[: None if bench.on_gpu else 1]:
        for name in MODELS:
            steps = 110 if bench.on_gpu else 4
            rows = random_rows(
                batch * steps, typical=typical, longest=longest if bench.on_gpu else 64
            )
            found: dict[str, tuple[float, float]] = {}
            for side in SIDES:
                if bench.left < 1.5 * longest_side + 5:
                    return f"{num_lines} lines of the table; time was up at {name}, {kind}"
                begun = time.monotonic()
                found[side] = _measure(bench, name, side, rows, batch, steps)
                longest_side = max(longest_side, time.monotonic() - begun)
                rate, memory = found[side]
                line = (
                    f"| {name} | {kind} | {side} | {rate:,.0f} | {memory:,.0f} | "
                    f"{rate / found['stock bf16'][0]:.2f} |"
                )
                with path.open("a", encoding="utf-8") as file:
                    file.write(f"{line}\n")
                num_lines += 1
    return f"{num_lines} lines of the table"


def _measure(
    bench: Bench, name: str, side: str, rows: TokenisedRows, batch: int, steps: int
) -> tuple[float, float]:
    """(rows a second, peak MiB) of one training."""
    clock = Clock(bench, warm_up=10 if bench.on_gpu else 1)
    gc.collect()
    if bench.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model = build(bench, name, dropout=True)
    if side.startswith("stock"):
        trainer: Any = _stock_trainer(
            bench, model, rows, bf16=side == "stock bf16", batch=batch, steps=steps, clock=clock
        )
    else:
        trainer = our_trainer(
            bench,
            model,
            rows,
            bf16=True,
            batch=batch,
            steps=steps,
            callbacks=[clock],
            packing=side == "ours",
        )
    trainer.train()
    memory = torch.cuda.max_memory_allocated() / 2**20 if bench.on_gpu else 0.0
    return (steps - clock.warm_up) * batch / clock.seconds, memory


def _stock_trainer(
    bench: Bench,
    model: Any,
    rows: TokenisedRows,
    *,
    bf16: bool,
    batch: int,
    steps: int,
    clock: Clock,
) -> Trainer:
    """Return the stock Trainer as documented; with bf16 also what its arguments offer for speed."""
    tuned = {"bf16": True, "train_sampling_strategy": "group_by_length"} if bf16 else {}
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(dir=bench.folder),
        max_steps=steps,
        per_device_train_batch_size=batch,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        optim="adamw_torch_fused",
        use_cpu=not bench.on_gpu,
        **tuned,
    )
    return Trainer(
        model, arguments, _collate, [rows[n] for n in range(len(rows))], callbacks=[clock]
    )  # type: ignore[arg-type]


def _collate(listed: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    longest = -(-max(len(row["input_ids"]) for row in listed) // 8) * 8
    ids, mask = torch.zeros(2, len(listed), longest, dtype=torch.long)
    for n, row in enumerate(listed):
        ids[n, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
        mask[n, : len(row["input_ids"])] = 1
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": torch.tensor([row["labels"] for row in listed]),
    }


def check_prediction(bench: Bench) -> str:
    """Compare rows a second of prediction in float32 with a padded loop in file order."""
    rows = random_rows(
        20_000 if bench.on_gpu else 400, typical=40, longest=256 if bench.on_gpu else 64
    )
    model = build(bench, "distilbert")
    padded, found = copy.deepcopy(model).eval(), {}
    for bf16 in (True, False):
        for _turn in range(2):  # the first warms up
            begun = time.perf_counter()
            expected_NC = _padded_logits(bench, padded, rows, bf16=bf16)
            found[f"padded {'bfloat16' if bf16 else 'float32'}"] = len(rows) / (
                time.perf_counter() - begun
            )
    trainer = our_trainer(bench, model, rows, bf16=False, batch=32, steps=1)
    for _turn in range(2):
        begun = time.perf_counter()
        logits_NC = trainer.predict_logits(rows)
        found["ours float32"] = len(rows) / (time.perf_counter() - begun)
    error = relative(torch.from_numpy(np.array(logits_NC)).double(), expected_NC)
    if not error < 1e-3:
        raise Failed(f"logits differ by {error:.1e} from the padded ones")
    return (
        ", ".join(f"{side} {rate:,.0f} rows/s" for side, rate in found.items())
        + f"; logits differ by {error:.1e}"
    )


def _padded_logits(bench: Bench, model: Any, rows: TokenisedRows, *, bf16: bool) -> torch.Tensor:
    found = []
    with torch.no_grad(), torch.autocast(bench.device.type, torch.bfloat16, enabled=bf16):
        for start in range(0, len(rows), 64):
            batch = Collator(Padding())(
                rows.__getitems__(np.arange(start, min(start + 64, len(rows))))
            )
            inputs = {
                name: value.to(bench.device) for name, value in batch.items() if name != "labels"
            }
            found.append(model(**inputs).logits.float())
    return torch.cat(found).double().cpu()


def table_of(folder: Path) -> str:
    """The speed table as far as it was measured; empty where it was not begun."""
    path = folder / TABLE
    return path.read_text(encoding="utf-8") if path.is_file() else ""

"""How fast training and prediction are, beside the stock Trainer and a padded loop."""

import copy
import gc
import importlib.util
import tempfile
import time
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from gpu_checks.material import Bench, Failed, Padding, build, our_trainer, random_rows, relative
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.training.batches.batching import Collator

TABLE = "speed.md"
HEAD = (
    "| model | tokens | batch | side | rows/s | tokens/s | share of bound | MiB | to tuned |\n"
    "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |\n"
)
SIDES = ("stock tuned", "ours", "ours compiled", "ours padded", "stock flash", "stock")
"""stock: as documented. tuned: bfloat16, rows grouped by length, fused AdamW. flash: that, with
flash_attention_2 of the package flash-attn, if it is installed. compiled: with
training.torch_compile."""
LENGTHS = {33: (30, 64), 128: (115, 256), 512: (900, 512)}
"""Mean tokens of a row: (typical tokens, most tokens). The last are mostly cut at 512."""
BATCHES = (32, 128, 256)
MODELS = ("bert-base", "minilm", "distilbert", "modernbert-base")
SECONDS = 1.0
"""Seconds that a training is timed, after its first steps, which warm up."""


class Clock(TrainerCallback):
    """Times the steps after the first ones, and ends training when it has timed enough.

    Attributes:
        seconds, steps: what was timed.

    Args:
        every: steps after which it waits for the device and looks how long they took.
    """

    def __init__(self, bench: Bench, every: int) -> None:
        self.bench, self.every, self.seconds, self.steps = bench, every, 0.0, 0
        self.warm_up = every if bench.on_gpu else 1

    def on_step_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        """Start once."""
        if state.global_step == self.warm_up:
            self.bench.wait()
            self.start = time.perf_counter()

    def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
        """Stop once the device has done enough."""
        self.steps = state.global_step - self.warm_up
        if self.steps > 0 and (self.steps % self.every == 0 or control.should_training_stop):
            self.bench.wait()
            self.seconds = time.perf_counter() - self.start
            control.should_training_stop |= self.seconds > SECONDS


def check_speed(bench: Bench) -> str:
    """Compare training with the stock Trainer, and with the matrix products that it needs."""
    path = bench.folder / TABLE
    path.write_text(HEAD, encoding="utf-8")
    longest_side, num_lines, reason = 0.0, 0, None
    sizes = [(tokens, batch) for batch in BATCHES for tokens in LENGTHS]
    for tokens, batch in sizes if bench.on_gpu else [(33, 8)]:
        for name in MODELS:
            found: dict[str, float] = {}
            for side in SIDES:
                if bench.left < 1.5 * longest_side + 5:
                    return f"{num_lines} lines of the table; time was up at {name}, {tokens} tokens"
                if side == "stock flash" and not importlib.util.find_spec("flash_attn"):
                    continue
                begun = time.monotonic()
                line, found[side], why = _measure(bench, name, side, tokens, batch)
                reason = why or reason
                longest_side = max(longest_side, time.monotonic() - begun)
                with path.open("a", encoding="utf-8") as file:
                    file.write(f"{line} {found[side] / found['stock tuned']:.2f} |\n")
                num_lines += 1
    attention = f"ours pads in attention: {reason}" if reason else "ours pads nothing"
    return f"{num_lines} lines of the table; {attention}"


def _measure(
    bench: Bench, name: str, side: str, tokens: int, batch: int
) -> tuple[str, float, str | None]:
    """The line of a training, its rows a second, and why its attention is padded."""
    typical, longest = LENGTHS[tokens]
    steps = 400 if bench.on_gpu else 4
    rows = random_rows(batch * min(steps, 64), typical=typical, longest=longest)
    clock = Clock(bench, every=8 if batch * tokens <= 16_384 else 2)
    gc.collect()
    if bench.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    attention = "flash_attention_2" if side == "stock flash" else None
    model = build(bench, name, dropout=True, attention=attention)
    products = _products(model)
    given: dict[str, Any] = {"batch": batch, "steps": steps}
    if side.startswith("stock"):
        trainer: Any = _stock_trainer(
            bench, model, rows, tuned=side != "stock", **given, clock=clock
        )
    else:
        given |= {"callbacks": [clock], "packing": side != "ours padded"}
        given |= {"torch_compile": True} if side == "ours compiled" else {}
        trainer = our_trainer(bench, model, rows, bf16=True, **given)
    trainer.train()
    memory = torch.cuda.max_memory_allocated() / 2**20 if bench.on_gpu else 0.0
    rate = clock.steps * batch / clock.seconds
    tokens_per_step = round(batch * float(rows.lengths_N.mean()))
    bound = _seconds_of_products(bench.device, products, tokens_per_step)
    line = (
        f"| {name} | {tokens} | {batch} | {side} | {rate:,.0f} | "
        f"{rate * float(rows.lengths_N.mean()):,.0f} | {bound * rate / batch:.0%} | {memory:,.0f} |"
    )
    return line, rate, getattr(trainer, "attention_padded_because", None)


def _products(model: Any) -> tuple[tuple[int, int], ...]:
    """Inputs and outputs of the Linear layers of the encoder."""
    layers = [module for module in model.base_model.modules() if isinstance(module, nn.Linear)]
    return tuple(sorted((layer.in_features, layer.out_features) for layer in layers))


@cache
def _seconds_of_products(
    device: torch.device, products: tuple[tuple[int, int], ...], tokens: int
) -> float:
    """Seconds of the matrix products of a step, forward and backward, and of nothing else."""
    total, repeats = 0.0, 20 if device.type == "cuda" else 1
    for shape in set(products):
        inputs, outputs = (
            torch.randn(tokens, units, device=device, dtype=torch.bfloat16) for units in shape
        )
        weight = torch.randn(*shape, device=device, dtype=torch.bfloat16)
        for repeat in range(-2, repeats):
            if repeat == 0:
                _wait(device)
                begun = time.perf_counter()
            torch.mm(inputs, weight)
            torch.mm(outputs, weight.T)
            torch.mm(inputs.T, outputs)
        _wait(device)
        total += (time.perf_counter() - begun) / repeats * products.count(shape)
    return total


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _stock_trainer(
    bench: Bench,
    model: Any,
    rows: TokenisedRows,
    *,
    tuned: bool,
    batch: int,
    steps: int,
    clock: Clock,
) -> Trainer:
    """Return the stock Trainer as documented; tuned: with what its arguments offer for speed."""
    options = {"bf16": True, "train_sampling_strategy": "group_by_length"} if tuned else {}
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
        **options,
    )
    listed = [rows[n] for n in range(len(rows))]
    return Trainer(model, arguments, _collate, listed, callbacks=[clock])  # type: ignore[arg-type]


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

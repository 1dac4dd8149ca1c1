"""Check the results of a device: packing, the gradient of a step, steps without waiting."""

import copy
import traceback
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from gpu_checks.material import (
    LARGE,
    Bench,
    Failed,
    Padding,
    Skipped,
    build,
    our_trainer,
    random_rows,
    relative,
)
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.training.batches.batching import Collator
from trainer.training.batches.flash_attention import flash_attention, flash_fault
from trainer.training.batches.packed_rows import PackedRows
from trainer.training.batches.packing import pack


def check_packing(bench: Bench) -> str:
    """Packed batches give logits and gradients of padded ones, in float32 and bfloat16."""
    found = []
    for name in LARGE:
        padded = build(bench, name)
        packed = copy.deepcopy(padded)
        if reason := pack(packed, torch.bfloat16):
            raise Failed(f"{name} is not packed: {reason}")
        rows = random_rows(24, longest=160)
        exact, ours = (
            _logits_and_gradient(bench, model, rows, bf16=False) for model in (padded, packed)
        )
        half, ours_half = (
            _logits_and_gradient(bench, model, rows, bf16=True) for model in (padded, packed)
        )
        for what in ("logits", "gradient"):
            single = relative(ours[what], exact[what])
            rounding, error = (
                relative(half[what], exact[what]),
                relative(ours_half[what], exact[what]),
            )
            found.append(
                f"{name} {what}: float32 {single:.1e}, bfloat16 {error:.1e} against "
                f"{rounding:.1e} of padded"
            )
            if single > 1e-4 or error > 2 * rounding + 1e-3:
                raise Failed(found[-1])
    return "; ".join(found)


def _logits_and_gradient(
    bench: Bench, model: Any, rows: TokenisedRows, *, bf16: bool
) -> dict[str, torch.Tensor]:
    """Logits of all rows in one batch, and the gradient of their mean loss."""
    model.eval().zero_grad()
    batch = Collator(Padding())(rows.__getitems__(np.arange(len(rows))))
    inputs = {name: value.to(bench.device) for name, value in batch.items()}
    labels = inputs.pop("labels")
    with torch.autocast(bench.device.type, torch.bfloat16, enabled=bf16):
        logits = model(**inputs).logits
    torch.nn.functional.cross_entropy(logits.float(), labels).backward()
    return {"logits": logits.detach().double().cpu(), "gradient": _gradient_of(model)}


def _gradient_of(model: Any) -> torch.Tensor:
    return torch.cat(
        [p.grad.flatten().double().cpu() for p in model.parameters() if p.grad is not None]
    )


def check_flash(bench: Bench) -> str:
    """Torch's flash kernels are used, and their dropout keeps the mean."""
    if not bench.on_gpu:
        raise Skipped("needs a CUDA GPU")
    dtypes = (torch.bfloat16, torch.float16)
    if faults := [reason for dtype in dtypes if (reason := flash_fault(bench.device, dtype))]:
        raise Failed(f"attention pads rows: {'; '.join(faults)}")
    rows = PackedRows(torch.arange(200) < torch.tensor([200, 90, 3])[:, None], bench.device)
    q, k, v = torch.randn(3, 293, 4, 64, device=bench.device, dtype=torch.bfloat16)
    attend = partial(flash_attention, q, k, v, rows, scale=0.125)
    drawn = torch.stack([attend(dropout=0.1) for _ in range(400)]).double()
    error = relative(drawn.mean(0), attend().double())
    if torch.equal(drawn[0], drawn[1]) or error > 0.05:
        raise Failed(f"the mean of 400 outputs with dropout differs by {error:.1e}")
    return f"used in bfloat16 and float16; the mean of 400 draws of dropout differs by {error:.1e}"


def check_gradient(bench: Bench) -> str:
    """The weighted gradient of a step does not depend on how its rows are cut."""
    found = []
    cuts = {
        "8 rows x 4": (8, 4, {}),
        "passes of 100 tokens": (32, 1, {"tokens_per_pass": 100}),
        "padded": (32, 1, {"packing": False}),
    }
    for bf16, bound in ((False, 1e-4), (True, 3e-2)):
        whole = _step_gradient(bench, bf16, 32, 1)
        for name, (batch, accumulation, options) in cuts.items():
            error = relative(_step_gradient(bench, bf16, batch, accumulation, **options), whole)
            found.append(f"{'bfloat16' if bf16 else 'float32'}, {name}: {error:.1e}")
            if not error < bound:
                raise Failed(found[-1])
    return "; ".join(found)


def _step_gradient(
    bench: Bench, bf16: bool, batch: int, accumulation: int, **options: Any
) -> torch.Tensor:
    """The gradient before the first update, of 32 rows, however they are cut."""
    held: list[torch.Tensor] = []

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            held.append(_gradient_of(model))

    values = {"gradient_accumulation_steps": accumulation, "max_grad_norm": 0.0, **options}
    model = build(bench, "distilbert")
    our_trainer(
        bench, model, random_rows(32), bf16=bf16, batch=batch, steps=1, callbacks=[Keep()], **values
    ).train()
    return held[0]


class Strict(TrainerCallback):
    """Let torch raise if the CPU waits for the GPU from the start of step 3 to the end of 5."""

    def on_step_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        """Begin."""
        if state.global_step == 2:
            torch.cuda.set_sync_debug_mode("error")

    def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        """End."""
        if state.global_step == 5:
            torch.cuda.set_sync_debug_mode("default")


def check_waiting(bench: Bench) -> str:
    """Packed steps never wait for the GPU; how often padded steps, logs and saves do is told."""
    if not bench.on_gpu:
        raise Skipped("needs a CUDA GPU")
    if place := _waits(bench, packing=True):
        raise Failed(f"a packed step waits in {place}")
    padded = _waits(bench, packing=False)
    told = [
        "packed steps wait for nothing",
        f"padded steps wait in {padded}" if padded else "padded steps wait for nothing",
    ]
    every = {
        "log": {"logging_strategy": "steps", "logging_steps": 1},
        "save": {"save_strategy": "steps", "save_steps": 1},
    }
    for what, values in every.items():
        told.append(f"a step with a {what} waits {_count_waits(bench, **values) / 4:.1f} times")
    return "; ".join(told)


def _waits(bench: Bench, *, packing: bool) -> str | None:
    """Where three steps wait; None if they do not."""
    model = build(bench, "distilbert", dropout=True)
    rows = random_rows(256)
    trainer = our_trainer(
        bench, model, rows, bf16=True, batch=32, steps=7, callbacks=[Strict()], packing=packing
    )
    try:
        trainer.train()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        return " < ".join(
            f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames[-6:])
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None


def _count_waits(bench: Bench, **values: Any) -> int:
    """Waits of four steps, by torch's warnings."""
    trainer = our_trainer(
        bench, build(bench, "distilbert"), random_rows(128), bf16=True, batch=32, steps=4, **values
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trainer.train()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)

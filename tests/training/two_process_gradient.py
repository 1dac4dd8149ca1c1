"""Save the gradient of one optimizer step; started by torchrun or alone.

usage: two_process_gradient.py MODEL OUT ROWS_PER_BATCH BATCHES_PER_STEP WEIGHTS NUM_ROWS
    SMOOTHING LOSS
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

from trainer.data.tokens.tokenise import TokenisedRows
from trainer.launch.distributed import is_main, start_processes
from trainer.training.arguments import build_arguments
from trainer.training.batches.batching import Collator
from trainer.training.run_trainer import RunTrainer


class KeepGradient(TrainerCallback):
    """Copies the gradient just before the optimizer uses it."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if not hasattr(self, "gradient"):
            self.gradient = torch.cat(
                [
                    p.grad.detach().flatten().clone()
                    for p in model.parameters()
                    if p.grad is not None
                ]
            )


def rows(num_rows: int, vocabulary: int = 8_000, multi_label: bool = False) -> TokenisedRows:
    """Random rows of unequal lengths; of three classes, or of any number of three labels."""
    generator = np.random.default_rng(3)
    lengths = generator.integers(4, 24, num_rows)
    ids = generator.integers(1000, vocabulary, lengths.sum()).astype(np.int32)
    label_ids = (
        generator.random((num_rows, 3)) < 0.4 if multi_label else generator.integers(0, 3, num_rows)
    )
    return TokenisedRows(
        {"input_ids": ids}, np.r_[0, np.cumsum(lengths)], label_ids, np.zeros(num_rows, bool)
    )


def step(
    model_folder: str,
    out: str,
    rows_per_batch: int,
    batches_per_step: int,
    weights: list[float],
    num_rows: int,
    smoothing: float,
    epochs: int = 1,
    workers: int = 0,
    multi_label: bool = False,
    bf16: bool = False,
    **options: Any,
) -> dict:
    """Gradient of the first step, final weights and logged training loss."""
    start_processes(None, None)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        model_folder,
        num_labels=3,
        problem_type="multi_label_classification" if multi_label else None,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        dtype=torch.float32,
    )
    training = {
        "num_train_epochs": epochs,
        "per_device_train_batch_size": rows_per_batch,
        "gradient_accumulation_steps": batches_per_step,
        "bf16": bf16,
        "max_grad_norm": 0.0,
        "logging_strategy": "epoch",
        "save_strategy": "no",
        "label_smoothing_factor": smoothing,
        "learning_rate": 1e-3,
        "optim": "sgd",
        "dataloader_num_workers": workers,
    }
    keep = KeepGradient()
    trainer = RunTrainer(
        model=model,
        args=build_arguments(training, checkpoints=Path(out).parent / "checkpoints", seed=7),
        train_dataset=rows(num_rows, multi_label=multi_label),
        data_collator=Collator(AutoTokenizer.from_pretrained(model_folder)),
        class_weights=np.array(weights),
        callbacks=[keep],
        **options,
    )
    trainer.run(None)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    parameters = torch.cat([p.detach().flatten() for p in model.parameters()])
    return {
        "gradient": keep.gradient,
        "losses": losses,
        "parameters": parameters,
        "steps": trainer.state.global_step,
        "processes": trainer.args.world_size,
    }


if __name__ == "__main__":
    folder, out, batch, accumulation, weights, num_rows, smoothing, loss, kind = sys.argv[1:]
    result = step(
        folder,
        out,
        int(batch),
        int(accumulation),
        [float(w) for w in weights.split(",")],
        int(num_rows),
        float(smoothing),
        epochs=2,
        loss=loss,
        multi_label=kind == "multi_label",
    )
    if is_main():
        torch.save(result, out)

"""Save logits and metrics for several numbers of rows; started by torchrun or alone.

usage: two_process_logits.py MODEL OUT_FOLDER
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from two_process_gradient import rows

from trainer.launch.distributed import start_processes
from trainer.training.arguments import build_arguments
from trainer.training.batches.batching import Collator, token_batches
from trainer.training.progress import epoch_metrics
from trainer.training.run_trainer import RunTrainer

NUM_ROWS = (37, 8, 2, 1)
TOKENS_PER_PASS = 60


def tiny_classifier(model_folder: str):
    model = AutoModelForSequenceClassification.from_pretrained(
        model_folder, num_labels=3, dtype=torch.float32
    )
    torch.nn.init.normal_(
        model.classifier.weight, generator=torch.Generator().manual_seed(0)
    )  # else the logits of all rows are nearly equal
    torch.nn.init.zeros_(model.classifier.bias)
    return model


def predict(model_folder: str, out_folder: str) -> dict:
    """Logits and number of batches by number of rows, and the metrics of the first number."""
    start_processes(None, 1)
    trainer = RunTrainer(
        model=tiny_classifier(model_folder),
        args=build_arguments({"bf16": False}, checkpoints=Path(out_folder) / "checkpoints", seed=7),
        data_collator=Collator(AutoTokenizer.from_pretrained(model_folder)),
        compute_metrics=epoch_metrics(["a", "b", "c"], "a"),
        tokens_per_pass=TOKENS_PER_PASS,
    )
    batches = {
        number: len(token_batches(rows(number).lengths_N, TOKENS_PER_PASS)) for number in NUM_ROWS
    }
    logits = {number: torch.from_numpy(trainer.predict_logits(rows(number))) for number in NUM_ROWS}
    metrics = {
        name: value
        for name, value in trainer.evaluate(rows(NUM_ROWS[0])).items()
        if "second" not in name and "runtime" not in name
    }
    return {
        "logits": logits,
        "metrics": metrics,
        "batches": batches,
        "processes": trainer.args.world_size,
        "process": trainer.args.process_index,
    }


if __name__ == "__main__":
    result = predict(*sys.argv[1:])
    torch.save(result, f"{sys.argv[2]}/{result['process']}.pt")

"""Train with WeightedTrainer in one of two processes: FOLDER, and a file for the weights."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from test_weighted_trainer import arguments, model, rows, weights_of

from trainer.training.weighted_trainer import WeightedTrainer

if __name__ == "__main__":
    args = arguments(
        sys.argv[1],
        max_steps=3,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=3,
        train_sampling_strategy="sequential",
        optim="sgd",
        ddp_backend="gloo",
    )
    trained = WeightedTrainer(model(), args, train_dataset=rows(), class_weights="balanced")
    trained.train()
    if args.process_index == 0:
        torch.save(weights_of(trained), sys.argv[2])

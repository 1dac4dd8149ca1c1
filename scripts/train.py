"""Train a classifier: `accelerate launch scripts/train.py --config configs/quickstart.yaml`.

`python scripts/train.py ...` works too, with one process.
"""

from trainer.cli import run_single, train_command

if __name__ == "__main__":
    run_single(train_command)

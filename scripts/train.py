"""Train a classifier: `accelerate launch scripts/train.py --config configs/quickstart.yaml`, or plain `python scripts/train.py ...`."""

from trainer.cli import run_single, train_command

if __name__ == "__main__":
    run_single(train_command)

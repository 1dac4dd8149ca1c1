"""Train a classifier: `accelerate launch scripts/train.py --config configs/quickstart.yaml`.

`python scripts/train.py ...` works too, with one process.
"""

from trainer.cli.training import train_command
from trainer.cli.typer_app import run_single

if __name__ == "__main__":
    run_single(train_command)

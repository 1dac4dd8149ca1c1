"""Train a classifier: `accelerate launch scripts/train.py configs/quickstart.yaml`.

With one process, `equipoise train configs/quickstart.yaml` does the same.
"""

from trainer.cli.training import train_command
from trainer.cli.typer_app import run_single

if __name__ == "__main__":
    run_single(train_command)

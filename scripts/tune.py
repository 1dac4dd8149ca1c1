"""Search good settings: `accelerate launch scripts/tune.py configs/topics.yaml`.

With one process, `equipoise tune configs/topics.yaml` does the same.
"""

from trainer.cli.training import tune_command
from trainer.cli.typer_app import run_single

if __name__ == "__main__":
    run_single(tune_command)

"""Compare balancing strategies: `accelerate launch scripts/compare.py configs/topics.yaml`.

With one process, `equipoise compare configs/topics.yaml` does the same.
"""

from trainer.cli.training import compare_command
from trainer.cli.typer_app import run_single

if __name__ == "__main__":
    run_single(compare_command)

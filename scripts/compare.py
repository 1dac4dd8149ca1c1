"""Compare balancing strategies: `accelerate launch scripts/compare.py --config
configs/topics.yaml`.

`python scripts/compare.py ...` works too, with one process.
"""

from trainer.cli.training import compare_command
from trainer.cli.typer_app import run_single

if __name__ == "__main__":
    run_single(compare_command)

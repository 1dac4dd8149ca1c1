"""Compare balancing strategies: `accelerate launch scripts/compare.py --config
configs/topics.yaml`.

`python scripts/compare.py ...` works too, with one process.
"""

from trainer.cli import compare_command, run_single

if __name__ == "__main__":
    run_single(compare_command)

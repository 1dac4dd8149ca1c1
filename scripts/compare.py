"""Compare balancing strategies: `accelerate launch scripts/compare.py --config configs/quickstart.yaml`, or plain `python scripts/compare.py ...`."""

from trainer.cli import compare_command, run_single

if __name__ == "__main__":
    run_single(compare_command)

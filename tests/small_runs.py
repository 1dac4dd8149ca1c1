"""Training in this process, of a config file."""

from trainer import load_config
from trainer.runs import run_result


def train(config, **overrides):
    """Train a run, or an ensemble, as `equipoise train` does; gives its folder."""
    loaded = load_config(str(config), [f"{key}={value}" for key, value in overrides.items()])
    return run_result.train(loaded).folder

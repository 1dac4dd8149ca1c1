"""Training in this process, of a config file."""

from trainer import load_config
from trainer.runs import ensemble, training_run


def train(config, **overrides):
    """Train a run, or an ensemble, as `equipoise train` does; gives its folder."""
    loaded = load_config(str(config), [f"{key}={value}" for key, value in overrides.items()])
    return (ensemble.train_ensemble if loaded.ensemble.size > 1 else training_run.train)(loaded)

"""One training run, from the config to the run folder. Start with `training_run.py`."""

"""Search good settings with Optuna, and estimate the best on rows not seen. Read `tune.py`."""

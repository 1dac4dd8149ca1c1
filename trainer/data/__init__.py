"""A file becomes rows, rows become splits, a split becomes a plan. Start with `prepare.py`."""

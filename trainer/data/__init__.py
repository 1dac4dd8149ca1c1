"""Files become rows, rows become splits, and a split becomes a plan. Start with `prepare.py`."""

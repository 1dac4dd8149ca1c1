"""Strategies x seeds: which balancing helps, and how sure that is. Start with `compare.py`."""

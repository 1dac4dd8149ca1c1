"""Compare strategies over several seeds, on the same rows. Start with `compare.py`."""

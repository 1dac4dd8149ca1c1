"""Splits of data that are larger than the memory, chosen in passes over the file."""

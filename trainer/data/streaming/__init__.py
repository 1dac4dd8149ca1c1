"""Choose the rows of data that are larger than the memory. Start with `streamed_rows.py`."""

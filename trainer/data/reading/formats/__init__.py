"""Parse each file format, with one parser for training and prediction. Start with `readers.py`."""

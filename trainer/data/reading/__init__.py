"""Read files, saved data sets and Hub data sets as one Arrow table. Start with `sources.py`."""

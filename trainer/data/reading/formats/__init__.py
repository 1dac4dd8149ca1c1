"""One parser for each file format, for training and for prediction."""

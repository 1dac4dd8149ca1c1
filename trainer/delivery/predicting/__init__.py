"""Predict labels with a saved model, for texts and files, and evaluate it on labelled files."""

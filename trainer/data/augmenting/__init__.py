"""New rows for rare classes, written by a language model and filtered."""

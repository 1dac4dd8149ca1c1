"""Wing 1: a file becomes rows, rows become splits, a split becomes a plan. Imports nothing from training."""

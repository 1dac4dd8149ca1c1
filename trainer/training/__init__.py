"""Rows become a model. Start with `weighted_trainer.py`."""

"""Checkpoints, and the trainer that resumes from them."""

"""Differences between strategies, with intervals and adjusted p-values."""

"""Metrics, intervals and decisions, computed from scores. Knows no model and no run folder."""

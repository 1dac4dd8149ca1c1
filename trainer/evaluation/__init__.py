"""Scores become evidence: metrics, intervals, decisions. Knows no model and no files."""

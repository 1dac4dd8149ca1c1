"""Experiment trackers of `training.report_to`."""

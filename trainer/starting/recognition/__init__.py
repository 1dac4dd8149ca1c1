"""Recognise what a file holds: its files, its format, its header, and the use of its columns."""

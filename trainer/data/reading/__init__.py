"""Rows of any source as one Arrow table: files, saved data sets, the Hub."""

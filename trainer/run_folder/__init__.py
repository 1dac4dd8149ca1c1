"""What a run leaves on disk: writing and reading its files, and the record of its environment."""

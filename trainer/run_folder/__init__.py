"""What a run leaves on disk: the writer, the reader, the record of the environment."""

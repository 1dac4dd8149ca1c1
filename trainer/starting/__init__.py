"""The command `init`: understand a file of rows, and write a commented YAML for it."""

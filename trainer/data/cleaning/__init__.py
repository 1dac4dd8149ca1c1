"""Rules that drop rows, and warnings about the rows that stay."""

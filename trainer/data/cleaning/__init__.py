"""Rules that drop rows, and warnings about rows that stay."""

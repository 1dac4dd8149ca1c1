"""Wing 2: rows become a model."""

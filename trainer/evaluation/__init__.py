"""Wing 3: a model becomes evidence."""

"""Wing 4: evidence leaves the house."""

"""Files that several processes write: locks, whole or not at all, the cache folder."""

"""Files that several processes use: locks, complete writes, digests and the cache folder."""

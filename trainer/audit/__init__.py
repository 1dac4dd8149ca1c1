"""Look at the data without training: counts, near duplicates, label noise, advice, and a page."""

"""From scores to labels: thresholds, temperature, priors and votes, fitted on validation rows."""

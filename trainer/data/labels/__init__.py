"""From the label column to classes: format, normalisation, mapping, order, several labels a row."""

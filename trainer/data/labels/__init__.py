"""From the cells of the label column to the classes: spelling, mapping, order, several labels a row."""

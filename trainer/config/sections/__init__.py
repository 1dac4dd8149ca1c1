"""One module for each section of the YAML. Imports no torch."""

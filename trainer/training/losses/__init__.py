"""The loss of rows with one label or several, and of an optimizer step."""

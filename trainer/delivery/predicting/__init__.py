"""A saved model labels texts and files."""

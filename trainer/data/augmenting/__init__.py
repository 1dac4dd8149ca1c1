"""Write new rows for rare classes with a language model, and filter them."""

"""A classifier on the embeddings of a frozen encoder."""

"""Labels of an audit that may be wrong or missing."""

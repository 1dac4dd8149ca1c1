"""The YAML file as typed models: load, override, check, and back to text."""

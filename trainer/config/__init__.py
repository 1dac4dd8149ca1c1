"""The YAML file as typed models: load, override, check and write it."""

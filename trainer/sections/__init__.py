"""The sections of the YAML as typed models; `trainer/config.py` puts them together. Imports no torch."""

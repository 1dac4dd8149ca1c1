"""The checks of scripts/bench/gpu.py, each a function (Bench) -> what it measured."""

"""One process among several: ranks, processes that hang, stop signals, exit codes."""

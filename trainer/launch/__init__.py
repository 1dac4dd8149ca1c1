"""One process among several, on machines that may stop it: ranks, watching, stop signals, exit codes."""

"""Several processes of one run, started as by torchrun, so that a test can end any of them."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

from conftest import ROOT


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@contextmanager
def ranks(*commands, node_of=lambda rank: 0, options=()):
    """The processes of these commands (arguments of Python) by rank; all end with the block.

    Args:
        node_of: rank -> the machine it plays; the first rank of each machine has local rank 0.
        options: {keyword of Popen: value} for each rank.
    """
    port, nodes = free_port(), [node_of(rank) for rank in range(len(commands))]
    processes = []
    try:
        for rank, command in enumerate(commands):
            given = dict(options[rank]) if options else {}
            place = {
                "RANK": rank,
                "LOCAL_RANK": nodes[:rank].count(nodes[rank]),
                "WORLD_SIZE": len(commands),
                "LOCAL_WORLD_SIZE": nodes.count(nodes[rank]),
            }
            place |= {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "ACCELERATE_USE_CPU": "true",
                "OMP_NUM_THREADS": 1,
            }
            environment = (
                os.environ
                | {"PYTHONPATH": str(ROOT)}
                | {k: str(v) for k, v in place.items()}
                | given.pop("env", {})
            )
            pipes = {
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
                "cwd": ROOT,
            }
            processes.append(
                subprocess.Popen(
                    [sys.executable, *map(str, command)], env=environment, **(pipes | given)
                )
            )
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.communicate()


def ends(processes, timeout=120):
    """(exit codes, standard errors) of processes that end by themselves."""
    told = [process.communicate(timeout=timeout)[1] for process in processes]
    return [process.returncode for process in processes], told

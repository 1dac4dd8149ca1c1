"""Steps of a simulated training in which one process fails.

Usage: watched.py FATE RANK TIMEOUT_MINUTES.
"""

import os
import signal
import sys
import time

import torch
import torch.distributed as dist

from trainer.launch import distributed, watch
from trainer.launch.exits import worded_errors


def meet(fate):
    if fate == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fate == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fate == "stuck":
        time.sleep(60)
    elif fate == "error":
        raise OSError(5, "Input/output error", "rows.arrow")


fate, doomed, rank = sys.argv[1], int(sys.argv[2]), int(os.environ["RANK"])
with worded_errors(), watch.naming_lost_processes():
    distributed.start_processes(None, None, timeout_minutes=float(sys.argv[3]))
    for step in range(1, 4):
        if step == 3 and rank == doomed:
            meet(fate)
        watch.progress(f"step {step}")
        dist.all_reduce(torch.ones(1))
    watch.progress(None)
    if fate == "writes" and rank == doomed:
        time.sleep(4.5)
    dist.barrier()
    print("finished", flush=True)

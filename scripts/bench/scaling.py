"""Compare training in several processes with one, and estimate the speed on 64 GPUs.

usage: python scripts/bench/scaling.py [--rows 64] [--steps 20] [--repeats 5] [--processes 2 4 ...]
           [--gpus 64] [--bandwidth-gbps 400] [--latency-us 5] [--step-seconds S]

MiniLM trains on tweets with this package and its defaults. Every side trains on the same rows in
fresh processes, by turns. On CPUs the sides are: one process with one thread, one process with all
cores, and --processes (2) of one thread each, with --rows rows per optimizer step over all of them.
On several GPUs: 1, 2, 4 ... processes of one GPU each, with --rows rows a step (strong scaling) and
with --rows rows per process (weak scaling). The first steps warm up and are not timed. Efficiency
is the speed-up over one thread or one GPU, divided by the number of threads or GPUs.

The script counts the bytes of the gradient in the buckets that DistributedDataParallel reduces, in
an untimed run of two processes on the CPU, so that one GPU is enough for the estimate. The estimate
starts from the median step of one thread or GPU, or from --step-seconds.
Results: scripts/bench/README.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from throughput import MINILM, Case, warm_up
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from tqdm import tqdm
from transformers import TrainerCallback

from trainer.launch.distributed import is_main, start_processes, world_size

WARM_UP_STEPS = 3
BACKWARD_SHARE = 2 / 3
"""Of a step: the backward pass makes two matrix products for each one of the forward pass."""


@dataclass(frozen=True)
class Side:
    """Processes of `threads` CPU threads each, that share the rows of an optimizer step."""

    name: str
    processes: int
    threads: int | None
    rows_per_step: int


class StepTimes(TrainerCallback):
    """The clock at the end of the warm-up and of the training."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Reads the clock when the device is done."""
        if state.global_step in (WARM_UP_STEPS, state.max_steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())


class BucketBytes(TrainerCallback):
    """Return the bytes of each bucket of gradients of a step, in order, as torch reduces them."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.buckets = trainer, [[]]  # type: tuple[Any, list[list[int]]]

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Counts from here on."""
        self.trainer.model_wrapped.register_comm_hook(None, self._reduce)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Begins the next step's list."""
        self.buckets.append([])

    def _reduce(
        self, group: Any, bucket: torch.distributed.GradBucket
    ) -> torch.futures.Future[torch.Tensor]:
        self.buckets[-1].append(bucket.buffer().numel() * bucket.buffer().element_size())
        return allreduce_hook(group, bucket)


def child(given: argparse.Namespace) -> dict[str, Any]:
    """One process of a side; what the main process has found."""
    case = Case(
        argparse.Namespace(
            data="tweets",
            model=MINILM,
            seed=0,
            max_length=128,
            batch=given.rows_per_step,
            steps=given.steps,
        )
    )
    start_processes(given.processes, given.threads)
    case.batch = given.rows_per_step // world_size()
    model = case.model()
    trainer, _ = case.ours(model)
    times, buckets = StepTimes(), BucketBytes(trainer)
    trainer.add_callback(buckets if given.count else times)
    warm_up(model, case, bf16=bool(case.config.training_values.get("bf16")))
    trainer.train()
    if given.count:
        return {"buckets": buckets.buckets[-2], "steps": len(buckets.buckets) - 1}
    begin, end = times.times
    return {"step_seconds": (end - begin) / (trainer.state.global_step - WARM_UP_STEPS)}


def run(side: Side, steps: int, *, count: bool = False) -> dict[str, Any]:
    """One side in fresh processes, under torch's launcher where there are several."""
    values = {
        "processes": side.processes,
        "threads": side.threads,
        "rows_per_step": side.rows_per_step,
        "steps": steps,
        "count": count,
    }
    launcher = [
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        str(side.processes),
        "--rdzv_backend",
        "c10d",
        "--rdzv_endpoint",
        "127.0.0.1:0",
    ]
    command = [
        sys.executable,
        *(launcher if side.processes > 1 else []),
        __file__,
        "--child",
        json.dumps(values),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if count else {}),
    )
    if done.returncode:
        sys.exit(f"{side.name}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def sides_of(rows: int, processes: list[int]) -> list[Side]:
    """The sides that this machine can run; the first is what the others are compared with.

    Raises:
        SystemExit: rows that the processes cannot share equally.
    """
    gpus = torch.cuda.device_count()
    numbers = processes or ([2**k for k in range(1, gpus.bit_length())] if gpus else [2])
    for number in numbers:
        if rows % number or (gpus and number > gpus):
            sys.exit(
                f"--processes {number}: it must divide --rows {rows}, and on GPUs each process "
                f"takes one of {gpus}."
            )
    if gpus:
        one, strong = (
            Side("1 GPU", 1, None, rows),
            [Side(f"{n} GPUs, same rows a step", n, None, rows) for n in numbers],
        )
        return [
            one,
            *strong,
            *(Side(f"{n} GPUs, same rows a GPU", n, None, rows * n) for n in numbers),
        ]
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    whole = [Side(f"1 process, {cores} threads", 1, cores, rows)] if cores > 1 else []
    return [
        Side("1 process, 1 thread", 1, 1, rows),
        *whole,
        *(Side(f"{n} processes, 1 thread each", n, 1, rows) for n in numbers),
    ]


def print_sides(sides: list[Side], seconds: dict[str, list[float]]) -> None:
    """Rows a second of each side, and how it compares with the first, turn by turn."""
    print(
        "\n| side | rows a step | rows/s | ms a step | speed-up | efficiency |\n| --- | ---: "
        "| ---: | ---: | ---: | ---: |"
    )
    for side in sides:
        rates = [side.rows_per_step / s for s in seconds[side.name]]
        ups = [
            rate * first / sides[0].rows_per_step
            for rate, first in zip(rates, seconds[sides[0].name], strict=True)
        ]
        share = median(ups) / (side.processes * (side.threads or 1))
        cells = [
            f"{spread(rates, '.0f')}",
            f"{median(seconds[side.name]) * 1e3:.1f}",
            spread(ups, ".2f"),
            f"{share:.0%}",
        ]
        print("|", " | ".join([side.name, str(side.rows_per_step), *cells]), "|")


def spread(values: list[float], form: str) -> str:
    """Median, smallest and largest."""
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


@dataclass(frozen=True)
class Plan:
    """Cost of the gradient's exchange among n GPUs by ring all-reduce, one message a bucket.

    Args:
        buckets: bytes of each bucket, in the order in which the backward pass fills them.
        step_seconds: a step of one GPU on the rows of a step, without exchange.
        bytes_per_second: that each GPU sends and at once receives.
        latency_seconds: of one of the 2 (n - 1) hops.
    """

    buckets: list[int]
    step_seconds: float
    bytes_per_second: float
    latency_seconds: float

    def sent_bytes(self, n: int) -> float:
        """What each GPU sends in a step, and receives."""
        return 2 * (n - 1) / n * sum(self.buckets)

    def seconds(self, n: int, buckets: list[int]) -> float:
        """The exchange of some buckets."""
        return (
            2
            * (n - 1)
            * (sum(buckets) / n / self.bytes_per_second + len(buckets) * self.latency_seconds)
        )

    def efficiencies(self, n: int) -> Iterator[float]:
        """Return efficiencies without and with overlap: same rows per GPU, then per step."""
        exchange, last = self.seconds(n, self.buckets), self.seconds(n, self.buckets[-1:])
        for compute in (self.step_seconds, self.step_seconds / n):
            for exposed in (exchange, max(last, exchange - BACKWARD_SHARE * compute)):
                yield compute / (compute + exposed)


def print_plan(
    plan: Plan, num_gpus: int, rows: int, origin: str, given: argparse.Namespace
) -> None:
    """The plan as a table, and what it takes for granted."""
    sizes = ", ".join(f"{size / 1e6:.1f}" for size in plan.buckets)
    print(
        f"\nGradient: {sum(plan.buckets):,} bytes in {len(plan.buckets)} all-reduces an "
        f"optimizer step, counted; in MB, as they start: {sizes}."
    )
    print(
        f"\nPlan for {num_gpus} GPUs, from {plan.step_seconds * 1e3:.2f} ms for a step of "
        f"{rows} rows ({origin}), efficiency without -> with overlap:"
    )
    print(
        "\n| GPUs | MB sent by each | exchange, ms | same rows a GPU | same rows a step |\n| "
        "---: | ---: | ---: | ---: | ---: |"
    )
    for n in sorted({2**k for k in range(1, num_gpus.bit_length())} | {num_gpus}):
        weak, weak_overlap, strong, strong_overlap = plan.efficiencies(n)
        cells = [
            str(n),
            f"{plan.sent_bytes(n) / 1e6:.1f}",
            f"{plan.seconds(n, plan.buckets) * 1e3:.2f}",
        ]
        print(
            "|",
            " | ".join(
                [
                    *cells,
                    f"{weak:.0%} -> {weak_overlap:.0%}",
                    f"{strong:.0%} -> {strong_overlap:.0%}",
                ]
            ),
            "|",
        )
    print(
        f"\nAssumed: a ring of {given.bandwidth_gbps:g} Gbit/s to and from every GPU and "
        f"{given.latency_us:g} us a hop, shared with nobody; rows divide without"
        " loss, also below what fills a GPU; no process waits for a slower one. With overlap, "
        "all buckets but the last travel during the backward pass"
        f" ({BACKWARD_SHARE:.0%} of a step); the last one, which holds the embeddings, is "
        "ready only when that pass ends."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows",
        type=int,
        default=64,
        help="rows of an optimizer step; in weak scaling of a process",
    )
    parser.add_argument(
        "--steps", type=int, default=20, help=f"timed steps; {WARM_UP_STEPS} more warm up"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--processes",
        type=int,
        nargs="+",
        default=[],
        help="numbers of processes to compare; left out: 2, or every power of two of GPUs",
    )
    parser.add_argument("--gpus", type=int, default=64, help="GPUs of the plan")
    parser.add_argument(
        "--bandwidth-gbps",
        type=float,
        default=400.0,
        help="gigabits a second that each GPU sends and receives; one NDR InfiniBand port: 400",
    )
    parser.add_argument(
        "--latency-us", type=float, default=5.0, help="microseconds of one hop of the ring"
    )
    parser.add_argument(
        "--step-seconds",
        type=float,
        help="of one GPU on --rows rows, for the plan; left out: what was measured",
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        found = child(argparse.Namespace(**json.loads(given.child)))
        if is_main():
            print(json.dumps(found))
        return
    sides = sides_of(given.rows, given.processes)
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for side in tqdm(
        [side for _ in range(given.repeats) for side in sides], desc="sides in turn", unit=" runs"
    ):
        seconds[side.name].append(run(side, given.steps + WARM_UP_STEPS)["step_seconds"])
    print(
        f"MiniLM, tweets, torch {torch.__version__}, {given.steps} steps, median of "
        f"{given.repeats} (smallest to largest)"
    )
    print_sides(sides, seconds)
    buckets = run(Side("bytes", 2, 1, given.rows), 3, count=True)["buckets"]
    origin = "given" if given.step_seconds else f"measured: {sides[0].name}"
    step_seconds = given.step_seconds or median(seconds[sides[0].name])
    print_plan(
        Plan(buckets, step_seconds, given.bandwidth_gbps / 8 * 1e9, given.latency_us / 1e6),
        given.gpus,
        given.rows,
        origin,
        given,
    )


if __name__ == "__main__":
    main()

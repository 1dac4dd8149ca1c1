"""Processes, threads and hardware; the only file that names ranks."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from trainer.errors import ConfigError, TrainerError

T = TypeVar("T")


def world_size() -> int:
    """Processes that the launcher started, from its environment; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that writes files and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def refuse_several_processes(what: str) -> None:
    """Raises ConfigError when a launcher started more than one process for something that one process does."""
    if world_size() > 1:
        raise ConfigError(f"{what} runs in one process, but {world_size()} were launched. Launch with python -m trainer train, or with --num_processes 1.")


def start_processes(num_processes: int | None, num_threads: int | None) -> None:
    """Join the process group and set the CPU threads.

    Args:
        num_processes: processes that must take part, or None for as many as were launched.
        num_threads: CPU threads of this process, or None for its share of the cores.
    Raises:
        ConfigError: another number of processes was launched than asked for.
    """
    if num_processes not in (None, world_size()):
        raise ConfigError(
            f"run.num_processes is {num_processes}, but {world_size()} process(es) were launched."
            " Launch with accelerate launch --num_processes and --multi_gpu (on CPUs also ACCELERATE_USE_CPU=true)."
        )
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.accelerator.is_available())
    assert state.num_processes == world_size(), "the launched processes did not find each other"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(num_threads or max(1, cores // local_processes))  # accelerate launch sets OMP_NUM_THREADS=1


@contextmanager
def main_first() -> Iterator[None]:
    """The first process of each machine runs the block, then the others, which find its cached files."""
    from accelerate import PartialState

    with PartialState().local_main_process_first():
        yield


def wait_for_everyone() -> None:
    """Barrier over all processes."""
    from accelerate import PartialState

    PartialState().wait_for_everyone()


def gains_from_bf16() -> bool:
    """Whether bfloat16 makes training faster here: CPUs with AMX or AVX512-BF16, NVIDIA GPUs from Ampere on."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_capability()[0] >= 8
    if torch.accelerator.is_available():
        return False
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def from_main(action: Callable[[], T]) -> T:
    """Result of an action that the main process alone runs, given to all; what it raises is raised in all."""
    from accelerate.utils import broadcast_object_list

    outcome: list[object] = [None, None]
    if is_main():
        try:
            outcome[0] = action()
        except TrainerError as error:
            outcome[1] = error
    if world_size() > 1:
        broadcast_object_list(outcome)
    if isinstance(outcome[1], TrainerError):
        raise outcome[1]
    return cast("T", outcome[0])

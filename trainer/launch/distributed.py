"""Processes, threads and hardware; with `watch.py` the only file that names ranks."""

import hashlib
import json
import os
import re
import socket
import sys
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

from trainer.errors import ConfigError, RunError, TrainerError, TrainingError, first_line
from trainer.launch import watch

T = TypeVar("T")
SAME_VERSIONS = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "numpy")
"""Packages whose versions all processes must share."""
SRUN_SIZE = "SLURM_STEP_NUM_TASKS"
MPI_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where srun and the kinds of MPI tell a task how many there are; set in shells that they start, and in all that these start."""


def world_size() -> int:
    """Processes that the launcher started, from its environment; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that writes files and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def is_first_of_machine() -> bool:
    """Whether this is the process that its machine's others wait for."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def leave_the_others(*, discards: bool) -> None:
    """Where a launcher started this process, with others or without, make it train by itself: with the GPU of its place, and its share of the cores.

    Args:
        discards: whether this one would discard what the others train.
    Raises:
        ConfigError: it would.
    """
    if discards:
        refuse_several_processes("compare --resume never")
    if "LOCAL_RANK" not in os.environ:
        return
    place = int(os.environ["LOCAL_RANK"])
    visible = [device for device in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device]
    if not visible:
        import torch

        visible = [str(number) for number in range(torch.cuda.device_count())]
    if visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[
            place % len(visible)
        ]  # where processes outnumber GPUs, several share one
    for name in (
        "RANK",
        "LOCAL_RANK",
        "WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
    ):  # LOCAL_WORLD_SIZE stays: so many share the cores
        os.environ.pop(name, None)


def refuse_several_processes(what: str) -> None:
    """Raises ConfigError when a launcher started more than one process for something that one process does."""
    if world_size() > 1:
        raise ConfigError(
            f"{what} runs in one process, but {world_size()} were launched. Launch it without accelerate, or with --num_processes 1."
        )


def start_processes(
    num_processes: int | None,
    num_threads: int | None,
    *,
    timeout_minutes: float = 30.0,
    use_cpu: bool = False,
) -> None:
    """Join the process group, choose the device and set the CPU threads.

    Args:
        num_processes: processes that must take part, or None for as many as were launched.
        num_threads: CPU threads of this process, or None for its share of the cores.
        timeout_minutes: how long the others are waited for.
        use_cpu: leave an accelerator alone.
    Raises:
        ConfigError: another number of processes was launched than asked for.
        TrainingError: not all of them came together in time.
    """
    if num_processes not in (None, world_size()):
        raise ConfigError(
            f"run.num_processes is {num_processes}, but {world_size()} process(es) were launched."
            " Launch with accelerate launch --num_processes and --multi_gpu (on CPUs also ACCELERATE_USE_CPU=true)."
        )
    if num_processes is None:
        _refuse_training_alone()
    if "WORLD_SIZE" not in os.environ:  # accelerate would take the sizes that MPI left for its own
        for name in MPI_SIZES:
            os.environ.pop(name, None)
    allow_missing_operations()
    import torch
    from accelerate import PartialState

    try:
        state = PartialState(
            cpu=device_type(use_cpu=use_cpu) == "cpu", timeout=timedelta(minutes=timeout_minutes)
        )
        if state.num_processes > 1:
            watch.start(
                state.process_index, state.num_processes, name_of_process(), timeout_minutes
            )
    except RuntimeError as error:  # torch.distributed's errors are
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise TrainingError(
            f"the {world_size()} processes did not come together at {where} (MASTER_ADDR and MASTER_PORT) within {timeout_minutes:g} min:"
            f" {first_line(error)} Look for a process that stopped, and for a wrong address or a closed port."
        ) from error
    assert state.num_processes == world_size(), "the launched processes did not find each other"
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(
        num_threads or max(1, cores // local_processes)
    )  # accelerate launch sets OMP_NUM_THREADS=1


def allow_missing_operations() -> None:
    """Let operations that Apple GPUs lack run on the CPU, which torch then warns of; called before torch is first imported."""
    if sys.platform == "darwin":
        os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def device_type(*, use_cpu: bool) -> str:
    """Return the kind of device that trains: "cpu", "cuda", "mps", "xpu" ...

    It is the accelerator, unless the CPU is asked for, by config or by ACCELERATE_USE_CPU. Several processes cannot share an
    Apple GPU, so they use the CPU.
    """
    import torch
    from accelerate.utils import parse_flag_from_env

    if use_cpu or parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available():
        return "cpu"
    found = torch.accelerator.current_accelerator()
    return "cpu" if found is None or (found.type == "mps" and world_size() > 1) else found.type


def _refuse_training_alone() -> None:
    """Raises ConfigError where a launcher was asked for more processes than found each other: each would train by itself."""
    groups = int(
        os.environ.get("GROUP_WORLD_SIZE", world_size())
    )  # accelerate and torchrun start theirs once in each task of srun
    remedy = "If each shall train by itself, set run.num_processes: 1."
    for name in (SRUN_SIZE, *MPI_SIZES):
        size = os.environ.get(name, "")
        tasks = int(size) if size.isdecimal() else 1
        if tasks > groups:
            by_srun = name == SRUN_SIZE
            launcher, rank = (
                ("srun", "SLURM_PROCID")
                if by_srun
                else (f"mpirun or srun ({name})", name.replace("SIZE", "RANK"))
            )
            stale = "" if by_srun else f" If no launcher runs any more, unset {name}."
            raise ConfigError(
                f"{launcher} started {tasks} tasks, but {groups} of them found each other; the others would train by themselves."
                f" In each task run accelerate launch with --num_machines {tasks} and --machine_rank ${rank}, as scripts/cluster/train.sbatch does."
                f"{stale} {remedy}"
            )
    asked = _asked_of_accelerate() if world_size() == 1 else 1
    if asked > 1:
        raise ConfigError(
            f"accelerate launch was asked for {asked} processes, but started one (with --cpu it always does)."
            f" On CPUs launch with ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes {asked}. {remedy}"
        )


def _asked_of_accelerate() -> int:
    """Processes that `accelerate launch`, the parent of a lone process, was asked for; 1 where that cannot be told."""
    if "ACCELERATE_MIXED_PRECISION" not in os.environ:
        return 1
    import psutil

    try:
        command = " ".join(psutil.Process().parent().cmdline())
    except (psutil.Error, AttributeError):  # the parent is gone or not ours
        return 1
    if found := re.search(r"--num[-_]processes[= ](\d+)", command):
        return int(found[1])
    if found := re.search(r"--config[-_]file[= ](\S+)", command):
        from accelerate.commands.config.config_args import load_config_from_file

        return int(load_config_from_file(found[1]).num_processes or 1)
    return 1


def name_of_process() -> str:
    """This process as messages name it: rank, host, process id."""
    return f"rank {os.environ.get('RANK', '0')} ({socket.gethostname()}, pid {os.getpid()})"


def code_version() -> dict[str, str]:
    """Digest of this package's modules, and the versions of the libraries that results depend on."""
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return {"the code of trainer/": digest.hexdigest()} | {
        f"the version of {name}": version(name) for name in SAME_VERSIONS
    }


def refuse_differences(find: Callable[[], dict[str, Any]]) -> None:
    """Compare what every process must hold alike.

    Args:
        find: gives {words that name a fact: plain value}, the value being shown where it differs; no secrets. Called with several processes only.
    Raises:
        RunError: on every process, naming those that differ from most, and what differs.
    """
    if world_size() == 1:
        return
    given = _gather(
        (
            name_of_process(),
            {
                name: json.dumps(value, sort_keys=True, default=str)
                for name, value in find().items()
            },
        )
    )
    usual = json.loads(
        Counter(json.dumps(found, sort_keys=True) for _, found in given).most_common(1)[0][0]
    )
    example = next(name for name, found in given if found == usual)
    faults = [
        f"{fact} is {found.get(fact, 'missing')} on {name}, {usual.get(fact, 'missing')} on {example}"
        for name, found in given
        for fact in sorted(found.keys() | usual.keys())
        if found.get(fact) != usual.get(fact)
    ]
    if faults:
        rest = f"; and {len(faults) - 5} more differences" if len(faults) > 5 else ""
        raise RunError(
            f"the processes differ: {'; '.join(faults[:5])}{rest}. Start all of them with the same config, data and code."
        )


def _gather(value: T) -> list[T]:
    """The value of every process, by rank."""
    from accelerate.utils import gather_object

    return cast("list[T]", gather_object([value]))


def main_first(action: Callable[[], T]) -> T:
    """Result of an action that the first process of each machine runs before the others, which find its cached files.

    Raises:
        TrainerError: on every process, what the action raised on the first that failed, with its name.
    """
    if world_size() == 1:
        return action()
    result: T | None = None
    for turn in (True, False):
        error: TrainerError | None = None
        if is_first_of_machine() is turn:
            try:
                result = action()
            except TrainerError as raised:
                error = raised
        failed = next(
            ((name, fault) for name, fault in _gather((name_of_process(), error)) if fault), None
        )
        if failed:
            raise type(failed[1])(f"{failed[0]}: {failed[1]}") from error
    return cast("T", result)


def wait_for_everyone() -> None:
    """Barrier over all processes."""
    from accelerate import PartialState

    PartialState().wait_for_everyone()


def gains_from_bf16(device: str) -> bool:
    """Whether bfloat16 makes training faster here: CPUs with AMX or AVX512-BF16, NVIDIA GPUs from Ampere on.

    Args:
        device: kind of device, as `device_type` gives it.
    """
    if device == "cuda":
        import torch

        return torch.cuda.get_device_capability()[0] >= 8
    if device != "cpu":
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


def largest_of_all(number: int) -> int:
    """Return the largest of the numbers that the processes give; no device is asked or waited for."""
    return _reduced(number, "MAX")


def sum_of_all(number: int) -> int:
    """Return the sum of the numbers that the processes give; no device is asked or waited for."""
    return _reduced(number, "SUM")


def _reduced(number: int, operation: str) -> int:
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return number
    import torch

    of_all = torch.tensor([number])
    dist.all_reduce(of_all, getattr(dist.ReduceOp, operation), group=_cpu_group())
    return int(of_all)


_groups: list[Any] = []


def _cpu_group() -> Any:
    """Processes that talk over the CPUs; how long they wait is for `watch` to say."""
    import torch.distributed as dist

    if not _groups:
        _groups.append(
            dist.group.WORLD
            if dist.get_backend() == "gloo"
            else dist.new_group(backend="gloo", timeout=timedelta(days=30))
        )
    return _groups[0]

"""Processes, threads and hardware. Only this file and `watch.py` deal with ranks."""

import hashlib
import json
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

from trainer.errors import ConfigError, RunError, TrainerError, TrainingError, first_line
from trainer.launch import watch
from trainer.launch.launch_settings import requested_processes

T = TypeVar("T")
SAME_VERSIONS = ("torch", "transformers", "datasets", "accelerate", "tokenizers", "numpy")
"""Packages whose versions must be equal in all processes."""
SRUN_SIZE = "SLURM_STEP_NUM_TASKS"
MPI_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables with the number of tasks, set by srun and by the kinds of MPI. Shells started by a
task pass them on to all their processes."""


def world_size() -> int:
    """Return the number of processes that the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Return whether this process writes files and prints messages."""
    return int(os.environ.get("RANK", "0")) == 0


def is_first_of_machine() -> bool:
    """Return whether the other processes of this machine wait for this one."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def leave_the_others(*, discards: bool) -> None:
    """Let a launched process train by itself, with a GPU of its own and its share of the cores.

    Args:
        discards: whether this process would discard the trainings of the others.
    Raises:
        ConfigError: it would.
    """
    if discards:
        refuse_several_processes("compare --resume never")
    if "LOCAL_RANK" not in os.environ:
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    visible = [device for device in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device]
    if not visible:
        import torch

        visible = [str(number) for number in range(torch.cuda.device_count())]
    if visible:  # processes share GPUs if there are more processes than GPUs
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[local_rank % len(visible)]
    # LOCAL_WORLD_SIZE stays: it is the number of processes that share the cores
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)


def refuse_several_processes(what: str) -> None:
    """Raise ConfigError if several processes were launched for something that needs one."""
    if world_size() > 1:
        raise ConfigError(
            f"{what} runs in one process, but {world_size()} were launched."
            " Launch it without accelerate, or with --num_processes 1."
        )


def start_processes(
    num_processes: int | None,
    num_threads: int | None,
    *,
    timeout_minutes: float = 30.0,
    use_cpu: bool = False,
) -> None:
    """Join the process group, choose the device and set the number of CPU threads.

    Args:
        num_processes: required number of processes; None for any number.
        num_threads: CPU threads of this process; None for its share of the cores.
        timeout_minutes: the longest wait for the other processes.
        use_cpu: do not use an accelerator.
    Raises:
        ConfigError: another number of processes was launched.
        TrainingError: not all processes joined in time.
    """
    if num_processes not in (None, world_size()):
        raise ConfigError(
            f"run.num_processes is {num_processes}, but {world_size()} process(es) were launched."
            " Launch with accelerate launch --num_processes and --multi_gpu"
            " (on CPUs also ACCELERATE_USE_CPU=true)."
        )
    if num_processes is None:
        _refuse_separate_tasks()
    if "WORLD_SIZE" not in os.environ:  # accelerate would read the sizes of a stale MPI
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
    except RuntimeError as error:  # the errors of torch.distributed
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise TrainingError(
            f"the {world_size()} processes did not connect at {address} (MASTER_ADDR and"
            f" MASTER_PORT) within {timeout_minutes:g} min: {first_line(error)}"
            " Look for a process that stopped, a wrong address or a closed port."
        ) from error
    assert state.num_processes == world_size(), "the launched processes did not connect"
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    share = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    torch.set_num_threads(num_threads or share)  # accelerate launch sets OMP_NUM_THREADS=1


def _refuse_separate_tasks() -> None:
    """Raise ConfigError if a launcher started, or should have started, more processes."""
    connected = int(os.environ.get("GROUP_WORLD_SIZE", world_size()))
    for name in (SRUN_SIZE, *MPI_SIZES):
        size = os.environ.get(name, "")
        if not size.isdecimal() or int(size) <= connected:
            continue
        launcher, rank, stale = "srun", "SLURM_PROCID", ""
        if name != SRUN_SIZE:
            launcher, rank = f"mpirun or srun ({name})", name.replace("SIZE", "RANK")
            stale = f" If no launcher is running, unset {name}."
        raise ConfigError(
            f"{launcher} started {size} tasks, but only {connected} of them are connected; the"
            " others would train separately. In each task run accelerate launch with"
            f" --num_machines {size} and --machine_rank ${rank}, as scripts/cluster/train.sbatch"
            f" does.{stale} If each task should train separately, set run.num_processes: 1."
        )
    requested = requested_processes() if world_size() == 1 else 1
    if requested > 1:
        raise ConfigError(
            f"accelerate launch was asked for {requested} processes, but started one (with --cpu it"
            " always does). On CPUs launch with ACCELERATE_USE_CPU=true accelerate launch"
            f" --multi_gpu --num_processes {requested}. If one process should train, set"
            " run.num_processes: 1."
        )


def allow_missing_operations() -> None:
    """Let operations that Apple GPUs lack run on the CPU; call this before importing torch."""
    if sys.platform == "darwin":
        os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def device_type(*, use_cpu: bool) -> str:
    """Return the kind of device that trains: "cpu", "cuda", "mps", "xpu" ...

    It is the accelerator, unless the config or ACCELERATE_USE_CPU selects the CPU. Several
    processes cannot share an Apple GPU, so they use the CPU.
    """
    import torch
    from accelerate.utils import parse_flag_from_env

    if use_cpu or parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available():
        return "cpu"
    found = torch.accelerator.current_accelerator()
    return "cpu" if found is None or (found.type == "mps" and world_size() > 1) else found.type


def gains_from_bf16(device: str) -> bool:
    """Return whether bfloat16 makes training faster on this hardware.

    This holds for CPUs with AMX or AVX512-BF16 and for NVIDIA GPUs from Ampere on.

    Args:
        device: kind of device, from `device_type`.
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


def name_of_process() -> str:
    """Return the name of this process in messages: rank, host and process id."""
    return f"rank {os.environ.get('RANK', '0')} ({socket.gethostname()}, pid {os.getpid()})"


def code_version() -> dict[str, str]:
    """Return a digest of this package's code and the versions of the libraries that it uses."""
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return {"the code of trainer/": digest.hexdigest()} | {
        f"the version of {name}": version(name) for name in SAME_VERSIONS
    }


def refuse_differences(find: Callable[[], dict[str, Any]]) -> None:
    """Compare facts that must be equal in all processes.

    Args:
        find: returns {name of a fact: plain value}; only called if there are several processes.
            Values that differ are shown, so they must not be secret.
    Raises:
        RunError: in every process, with the names of those that differ from the majority.
    """
    if world_size() == 1:
        return
    facts = {name: json.dumps(value, sort_keys=True, default=str) for name, value in find().items()}
    given = _gather((name_of_process(), facts))
    usual = json.loads(
        Counter(json.dumps(found, sort_keys=True) for _, found in given).most_common(1)[0][0]
    )
    example = next(name for name, found in given if found == usual)
    faults = [
        f"{fact} is {found.get(fact, 'missing')} on {name},"
        f" {usual.get(fact, 'missing')} on {example}"
        for name, found in given
        for fact in sorted(found.keys() | usual.keys())
        if found.get(fact) != usual.get(fact)
    ]
    if faults:
        rest = f"; and {len(faults) - 5} more differences" if len(faults) > 5 else ""
        raise RunError(
            f"the processes differ: {'; '.join(faults[:5])}{rest}."
            " Start all of them with the same config, data and code."
        )


def _gather(value: T) -> list[T]:
    """Return the value of every process, by rank."""
    from accelerate.utils import gather_object

    return cast("list[T]", gather_object([value]))


def main_first(action: Callable[[], T]) -> T:
    """Run an action on the first process of each machine, then on the others; return its result.

    The others find the cached files of the first.

    Raises:
        TrainerError: in every process, the error of the first process that failed, with its name.
    """
    if world_size() == 1:
        return action()
    result: T | None = None
    for is_turn_of_first in (True, False):
        error: TrainerError | None = None
        if is_first_of_machine() is is_turn_of_first:
            try:
                result = action()
            except TrainerError as raised:
                error = raised
        for name, fault in _gather((name_of_process(), error)):
            if fault:
                raise type(fault)(f"{name}: {fault}") from error
    return cast("T", result)


def from_main(action: Callable[[], T]) -> T:
    """Run an action on the main process; return its result, or raise its error, in all."""
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


def wait_for_everyone() -> None:
    """Wait until all processes have reached this line."""
    from accelerate import PartialState

    PartialState().wait_for_everyone()


def largest_of_all(number: int) -> int:
    """Return the largest number of all processes, without waiting for a device."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return number
    import torch

    of_all = torch.tensor([number])
    dist.all_reduce(of_all, dist.ReduceOp.MAX, group=_cpu_group())
    return int(of_all)


@cache
def _cpu_group() -> Any:
    """Return a group of all processes that uses the CPUs; `watch` limits its waiting times."""
    import torch.distributed as dist

    if dist.get_backend() == "gloo":
        return dist.group.WORLD
    return dist.new_group(backend="gloo", timeout=timedelta(days=30))

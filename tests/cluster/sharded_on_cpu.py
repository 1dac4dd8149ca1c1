"""Run scripts/train.py with an accelerate that also shards on CPUs.

Without the change, accelerate ignores an FSDP config on CPUs and uses DDP.
"""

from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from trainer.cli.training import train_command
from trainer.cli.typer_app import run_single

start = AcceleratorState.__init__


def start_as_on_gpus(self, mixed_precision=None, cpu=False, *args, **kwargs):
    PartialState(cpu=True)
    if not AcceleratorState._shared_state:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    start(self, mixed_precision, cpu, *args, **kwargs)


if __name__ == "__main__":
    AcceleratorState.__init__ = start_as_on_gpus
    run_single(train_command)

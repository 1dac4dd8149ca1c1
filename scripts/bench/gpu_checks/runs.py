"""Check whole runs: training, kills and resuming, lack of memory, modes and precisions, serving."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import torch

from gpu_checks.material import Bench, Failed, Skipped, config_file, memory_limited, relative
from trainer import load_config
from trainer.delivery.predicting.predict import Classifier
from trainer.runs import training_run
from trainer.training.run_trainer import RunTrainer

KILLED = """
import os, signal, sys
from trainer.training.run_trainer import RunTrainer as W
old, calls = W.training_step, []
def step(self, *arguments, **values):
    calls.append(1)
    if len(calls) == 7: os.kill(os.getpid(), signal.SIGKILL)
    return old(self, *arguments, **values)
W.training_step = step
sys.argv = ['equipoise', 'train', '--config', sys.argv[1]]
from trainer.cli import main
main()
"""
MEMORY_BYTES = 3_000_000_000
"""Memory of the GPU in which one DistilBERT trains with short passes; two do not fit."""


def _train(bench: Bench, name: str, **sections: Any) -> tuple[Path, str]:
    """Train in this process; the run folder and what was printed."""
    told = io.StringIO()
    with redirect_stdout(told), redirect_stderr(told):
        run = training_run.train(load_config(str(config_file(bench, name, **sections))))
    return run, told.getvalue()


def _figures(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))


def check_run(bench: Bench) -> str:
    """Check that a run trains, in bfloat16 on a GPU that gains from it, and that metrics.json says
    so."""
    run, _ = _train(bench, "whole", training={"max_steps": 60 if bench.on_gpu else 8})
    metrics, config = _figures(run), (run / "config.yaml").read_text(encoding="utf-8")
    if bench.on_gpu and torch.cuda.get_device_capability()[0] >= 8 and "bf16: true" not in config:
        raise Failed("bf16 is not the default")
    measured = metrics["training"]
    if bench.on_gpu and measured["peak_memory_of"] != "accelerator":
        raise Failed(f"the peak of memory is of the {measured['peak_memory_of']}")
    numbers = ", ".join(
        f"{name} {value:,.4g}" for name, value in measured.items() if isinstance(value, int | float)
    )
    return f"macro F1 {metrics['validation']['macro_f1']:.3f}; {numbers}"


def check_modes(bench: Bench) -> str:
    """Compare the evaluation of runs with that of their saved models on the CPU in float32."""
    short = {"max_steps": 6 if bench.on_gpu else 2}
    decision = {"temperature": True, "prior": "natural"}
    kinds: dict[str, dict[str, Any]] = {
        "full with a decision": {"decision": decision, "training": short},
        "lora": {"model": {"mode": "lora"}, "training": short},
        "head": {"model": {"mode": "head"}},
        "accumulation, focal loss": {
            "loss": {"name": "focal"},
            "training": short | {"gradient_accumulation_steps": 2},
        },
    }
    if bench.on_gpu:
        kinds["float16"] = {"training": short | {"fp16": True}}
        kinds["tf32"] = {"training": short | {"bf16": False, "tf32": True}}
    found = []
    for kind, sections in kinds.items():
        run, _ = _train(bench, re.sub(r"\W+", "-", kind), **sections)
        found.append(f"{kind} {_difference_from_cpu(bench, run):.1e}")
        bound = 1e-2 if kind == "tf32" else 1e-3
        if not float(found[-1].rpartition(" ")[2]) < bound:
            raise Failed(f"probabilities differ: {found[-1]}")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return "largest difference of a probability: " + ", ".join(found)


def _difference_from_cpu(bench: Bench, run: Path) -> float:
    """Return the largest difference of probabilities between a run and its model on the CPU."""
    import pyarrow.parquet as pq

    texts = [
        line.rpartition(",")[0]
        for line in (bench.folder / "rows.csv").read_text(encoding="utf-8").splitlines()[1:]
    ]
    rows = [
        row
        for row in pq.read_table(run / "predictions.parquet").to_pylist()
        if row["split"] == "validation"
    ][:64]
    classifier = Classifier.load(run, device="cpu")
    found_NC = classifier.probabilities([texts[row["row"]] for row in rows])
    told_NC = np.array(
        [[row[f"probability_{label}"] for label in classifier.labels] for row in rows]
    )
    return float(np.abs(found_NC - told_NC).max())


def check_resume(bench: Bench) -> str:
    """Check that a run which is killed and resumed ends with the weights of an unbroken run."""
    every = {"training": {"max_steps": 12, "save_strategy": "steps", "save_steps": 4}}
    config = config_file(bench, "broken", **every)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(config)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=bench.left
    )
    if done.returncode != -signal.SIGKILL:
        raise Failed(
            f"the run that was to be killed ended with {done.returncode}: {done.stderr[-800:]}"
        )
    broken, told = _train(bench, "broken", **every)
    if "Resuming from" not in told:
        raise Failed(f"the killed run was not resumed: {told[-800:]}")
    first = _weights_of(_train(bench, "first", **every)[0])
    again = (
        _weights_of(_train(bench, "again", **every)[0]) if bench.on_gpu else first
    )  # a CPU repeats itself bit for bit
    noise, error = relative(again, first), relative(_weights_of(broken), first)
    words = f"two unbroken runs differ by {noise:.1e}, the resumed one by {error:.1e}"
    if error > 3 * noise:
        raise Failed(words)
    return words


def _weights_of(run: Path) -> torch.Tensor:
    """All weights of a run's model as one vector."""
    from safetensors.torch import load_file

    return torch.cat(
        [
            tensor.flatten().double()
            for _, tensor in sorted(load_file(run / "model/model.safetensors").items())
        ]
    )


def check_memory(bench: Bench) -> str:
    """Check that a pass which does not fit is halved, without an earlier model in memory.

    On a CPU the lack of memory is played: passes of more than 300 tokens raise what CUDA raises.
    """
    step = {"max_steps": 4, "per_device_train_batch_size": 1024 if bench.on_gpu else 32}
    every = {
        "training": step | {"save_strategy": "steps", "save_steps": 2},
        "speed": {"tokens_per_pass": 65_536},
    }
    with (
        _counting_models(bench) as seen,
        memory_limited(bench, MEMORY_BYTES) if bench.on_gpu else _small_memory(300),
    ):
        _, told = _train(bench, "tight", **every)
    notes = re.findall(r"memory ran out[^\n]*", told)
    if not notes:
        raise Failed("memory was never too small: the check needs a smaller share")
    if any(living for living, _ in seen):
        raise Failed(
            f"earlier models in memory when a trainer was built: {[living for living, _ in seen]}"
        )
    held = max(num_bytes for _, num_bytes in seen[1:]) / 2**20
    if (
        held > 200
    ):  # the new model is not on the GPU yet, and the one before had 1,000 with its optimizer
        raise Failed(f"{held:,.0f} MiB are held when a trainer is built anew")
    return f"{len(notes)} times: {notes[-1]}; {held:,.0f} MiB held when a trainer is built anew"


@contextmanager
def _counting_models(bench: Bench) -> Iterator[list[tuple[int, int]]]:
    """Yield a list of (earlier models alive, bytes on the GPU) for each trainer built."""
    seen: list[tuple[int, int]] = []
    models: list[Any] = []
    build = RunTrainer.__init__

    def counted(self: Any, **values: Any) -> None:
        held = torch.cuda.memory_allocated() if bench.on_gpu else 0
        seen.append((sum(model() is not None for model in models), held))
        models.append(weakref.ref(values["model"]))
        build(self, **values)

    RunTrainer.__init__ = counted  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        RunTrainer.__init__ = build  # type: ignore[method-assign]


@contextmanager
def _small_memory(tokens: int) -> Iterator[None]:
    compute_loss = RunTrainer.compute_loss

    def checked(self: Any, model: Any, inputs: Any, *arguments: Any, **values: Any) -> Any:
        if inputs["attention_mask"].sum() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return compute_loss(self, model, inputs, *arguments, **values)

    RunTrainer.compute_loss = checked  # type: ignore[method-assign]
    try:
        yield
    finally:
        RunTrainer.compute_loss = compute_loss  # type: ignore[method-assign]


def check_serving(bench: Bench) -> str:
    """The server answers as the saved model does; latency of single texts, and texts a second."""
    run = bench.folder / "runs/whole"
    if not (run / "metrics.json").is_file():
        raise Skipped("needs the run of the check 'run'")
    texts = [
        line.rpartition(",")[0]
        for line in (bench.folder / "rows.csv").read_text(encoding="utf-8").splitlines()[1:513]
    ]
    with _serving(bench, run) as url:
        num_single = 200 if bench.on_gpu else 40
        for text in texts[:20]:
            _ask(url, text)
        seconds = sorted(_timed(url, text) for text in texts[:num_single])
        _ask(url, texts)
        begun = time.perf_counter()
        for _ in range(3):
            answers = _ask(url, texts)
        rate = 3 * len(texts) / (time.perf_counter() - begun)
    expected = Classifier.load(run, device=str(bench.device)).predict(texts)
    wrong = sum(
        answer[0]["label"] != prediction.label
        for answer, prediction in zip(answers, expected, strict=True)
    )
    if wrong:
        raise Failed(f"{wrong} of {len(texts)} answers differ from the saved model's")
    late = seconds[int(0.99 * len(seconds)) - 1]
    return (
        f"p50 {1000 * median(seconds):.1f} ms, p99 {1000 * late:.1f} ms a text; {rate:,.0f} "
        f"texts/s in requests of {len(texts)}"
    )


@contextmanager
def _serving(bench: Bench, run: Path) -> Iterator[str]:
    """Address of a server of the run, once it is ready; stopped at the end."""
    command = [
        sys.executable,
        "-m",
        "trainer",
        "serve",
        str(run),
        "--port",
        "0",
        "--device",
        bench.device.type,
    ]
    log = bench.folder / "serve.log"
    with log.open("w", encoding="utf-8") as output:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        while not (
            address := re.search(r"http://127\.0\.0\.1:\d+", log.read_text(encoding="utf-8"))
        ) or not _is_ready(address.group()):
            if process.poll() is not None or bench.left < 5:
                raise Failed(f"the server is not ready: {log.read_text(encoding='utf-8')[-800:]}")
            time.sleep(0.2)
        yield address.group()
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/ready", timeout=5):
            return True
    except OSError:
        return False


def _ask(url: str, inputs: Any) -> Any:
    request = Request(
        url, json.dumps({"inputs": inputs}).encode(), {"Content-Type": "application/json"}
    )
    with urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def _timed(url: str, text: str) -> float:
    begun = time.perf_counter()
    _ask(url, text)
    return time.perf_counter() - begun

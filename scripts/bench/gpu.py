"""What only a GPU can show: that results are right there, and how fast training, prediction and serving are.

usage: python scripts/bench/gpu.py [--cpu] [--minutes 8] [--out FOLDER] [--only NAME ...]

Needs a checkout, no network and no real weights: models have the shape of real ones and random weights, texts are made
up. Nothing has to be installed: put packages that the machine lacks, or has in an older version, beside it as wheels
(`pip install --no-index --no-deps --target DIR *.whl; PYTHONPATH=DIR:.`). Each check prints pass, FAIL or skipped, and
what it measured. A check that fails does not stop the others; exit code 1 tells that one failed. --cpu: every check on
the CPU with small models, to try the script itself. Results: scripts/bench/README.md.
"""

import argparse
import copy
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers import logging as transformers_logging

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from trainer.data.tokenise import TokenisedRows  # noqa: E402
from trainer.training.arguments import build_arguments  # noqa: E402
from trainer.training.batching import Collator  # noqa: E402
from trainer.training.packing import pack  # noqa: E402
from trainer.training.weighted_trainer import WeightedTrainer  # noqa: E402

NUM_LABELS, VOCABULARY = 8, 30_522
WEIGHTS_C = np.linspace(0.4, 1.6, NUM_LABELS)
LARGE = {
    "distilbert": ("DistilBert", {}),
    "bert-base": ("Bert", {}),
    "roberta-base": ("Roberta", {"vocab_size": 50_265, "max_position_embeddings": 514, "pad_token_id": 1}),
    "modernbert-base": ("ModernBert", {"max_position_embeddings": 1024}),
}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
SMALL_DISTIL = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96}


class Skipped(Exception):
    """A check has no sense here; its text says why."""


class Failed(Exception):
    """A check measured what must not be; its text says what."""


def build(name: str, *, dropout: bool = False, seed: int = 0, spread: float = 0.02) -> Any:
    """A classifier with random weights: of the real model's shape on a GPU, small on a CPU."""
    import transformers

    kind, sizes = LARGE[name]
    if not torch.cuda.is_available() or DEVICE.type == "cpu":
        sizes = sizes | (SMALL_DISTIL if kind == "DistilBert" else SMALL)
    names = ("dropout", "attention_dropout") if kind == "DistilBert" else ("hidden_dropout_prob", "attention_probs_dropout_prob")
    rates = {} if dropout or kind == "ModernBert" else dict.fromkeys(names, 0.0)
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(**sizes, **rates, num_labels=NUM_LABELS, initializer_range=spread)
    return getattr(transformers, f"{kind}ForSequenceClassification")(config)


def random_rows(count: int, *, seed: int = 0, typical: int = 28, longest: int = 256) -> TokenisedRows:
    """Rows of made-up token ids: lengths as of tweets (log-normal), classes skewed."""
    generator = np.random.default_rng(seed)
    lengths_N = np.clip(generator.lognormal(np.log(typical), 0.5, count), 4, longest).astype(np.int64)
    ids = generator.integers(200, VOCABULARY - 200, lengths_N.sum()).astype(np.int32)
    p_C = np.geomspace(1, 1 / 40, NUM_LABELS)
    label_ids_N = generator.choice(NUM_LABELS, count, p=p_C / p_C.sum())
    offsets_N1 = np.r_[0, np.cumsum(lengths_N)]
    return TokenisedRows({"input_ids": ids}, offsets_N1, label_ids_N, np.zeros(count, np.bool_))


class Padding:
    """What a collator of ours asks of a tokenizer, without one."""

    pad_token_id, padding_side, model_input_names = 0, "right", ("input_ids", "attention_mask")
    pad_token_type_id = 0

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """Nothing to save."""


def our_trainer(model: Any, rows: TokenisedRows, *, bf16: bool, batch: int, steps: int, callbacks: Any = (), **values: Any) -> WeightedTrainer:
    """A WeightedTrainer as a config would build it."""
    options = {name: values.pop(name) for name in ("packing", "tokens_per_pass") if name in values}
    training = {
        "per_device_train_batch_size": batch,
        "max_steps": steps,
        "bf16": bf16,
        "use_cpu": DEVICE.type == "cpu",
        "learning_rate": 2e-5,
        "optim": "adamw_torch_fused",
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_strategy": "no",
        "train_sampling_strategy": "group_by_length",
    }
    return WeightedTrainer(
        model=model,
        args=build_arguments(training | values, checkpoints=Path(tempfile.mkdtemp()), seed=0),
        train_dataset=rows,
        data_collator=Collator(Padding(), multiple=8 if bf16 else 1),
        class_weights_C=WEIGHTS_C,
        sampling="group_by_length",
        callbacks=list(callbacks),
        **options,
    )


def autocast(bf16: bool) -> Any:
    """Mixed precision, or none."""
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16)


def logits_and_gradient(model: Any, rows: TokenisedRows, bf16: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of all rows in one batch, and the gradient of their summed loss."""
    model.to(DEVICE).eval().zero_grad()
    batch = {name: value.to(DEVICE) for name, value in Collator(Padding())(rows.__getitems__(np.arange(len(rows)))).items()}
    labels = batch.pop("labels")
    with autocast(bf16):
        logits = model(**batch).logits
    torch.nn.functional.cross_entropy(logits.float(), labels).backward()
    return logits.detach().double().cpu(), gradient_of(model)


def gradient_of(model: Any) -> torch.Tensor:
    """The gradient of all parameters as one vector."""
    return torch.cat([p.grad.flatten().double().cpu() for p in model.parameters() if p.grad is not None])


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    return float((found - expected).norm() / expected.norm())


def check_packing() -> str:
    """Packed batches give logits and gradients of padded ones, in float32 and bfloat16."""
    found = []
    for name in LARGE:
        padded = build(name)
        packed = copy.deepcopy(padded)
        if reason := pack(packed):
            raise Failed(f"{name} is not packed: {reason}")
        rows = random_rows(24, longest=160)
        exact = logits_and_gradient(padded, rows, bf16=False)
        ours = logits_and_gradient(packed, rows, bf16=False)
        half, ours_half = logits_and_gradient(padded, rows, bf16=True), logits_and_gradient(packed, rows, bf16=True)
        for what, number in (("logits", 0), ("gradient", 1)):
            single = relative(ours[number], exact[number])
            rounding, error = relative(half[number], exact[number]), relative(ours_half[number], exact[number])
            found.append(f"{name} {what}: float32 {single:.1e}, bfloat16 {error:.1e} against {rounding:.1e} of padded")
            if single > 1e-4 or error > 2 * rounding + 1e-3:
                raise Failed(found[-1])
    return "; ".join(found)


def step_gradient(bf16: bool, batch: int, accumulation: int, **options: Any) -> torch.Tensor:
    """The gradient before the first update, of 32 rows, however they are cut."""
    held: list[torch.Tensor] = []

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            held.append(gradient_of(model))

    trainer = our_trainer(
        build("distilbert"), random_rows(32), bf16=bf16, batch=batch, steps=1,
        callbacks=[Keep()], gradient_accumulation_steps=accumulation, max_grad_norm=0.0, **options,
    )  # fmt: skip
    trainer.train()
    return held[0]


def check_gradient() -> str:
    """The weighted gradient of a step does not depend on how its rows are cut."""
    found = []
    for bf16, bound in ((False, 1e-4), (True, 3e-2)):
        whole = step_gradient(bf16, 32, 1)
        cuts = {"8 rows x 4": (8, 4, {}), "passes of 100 tokens": (32, 1, {"tokens_per_pass": 100}), "padded": (32, 1, {"packing": False})}
        for name, (batch, accumulation, options) in cuts.items():
            error = relative(step_gradient(bf16, batch, accumulation, **options), whole)
            found.append(f"{'bfloat16' if bf16 else 'float32'}, {name}: {error:.1e}")
            if not error < bound:
                raise Failed(found[-1])
    return "; ".join(found)


def check_waiting() -> str:
    """No step waits for the GPU but where it logs: torch raises where one does."""
    if DEVICE.type != "cuda":
        raise Skipped("needs a CUDA GPU")
    found = []
    for packing in (True, False):

        class Strict(TrainerCallback):
            def on_step_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
                if state.global_step >= 2:
                    torch.cuda.set_sync_debug_mode("error")

            def on_step_end(self, *_: Any, **__: Any) -> None:
                torch.cuda.set_sync_debug_mode("default")

        trainer = our_trainer(build("distilbert"), random_rows(256), bf16=True, batch=32, steps=5, callbacks=[Strict()], packing=packing)
        try:
            trainer.train()
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            frames = [f for f in traceback.extract_tb(error.__traceback__)]
            places = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames[-6:]))
            found.append(f"{'packed' if packing else 'padded'}: waits in {places}")
        finally:
            torch.cuda.set_sync_debug_mode("default")
    if found:
        raise Failed("; ".join(found))
    return "packed and padded steps wait for nothing"


def make_folder(folder: Path, *, name: str = "distilbert", num_rows: int = 3000) -> Path:
    """A model with a tokenizer and a CSV of made-up texts whose words tell their class; gives the folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [f"w{n}" for n in range(5000)] + [f"c{c}" for c in range(NUM_LABELS)]
    vocabulary = {token: n for n, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, **special).save_pretrained(folder / "model")
    build(name, dropout=True).base_model.save_pretrained(folder / "model")
    generator = np.random.default_rng(0)
    p_C = np.geomspace(1, 1 / 20, NUM_LABELS)
    lines = ["text,label"]
    for label in generator.choice(NUM_LABELS, num_rows, p=p_C / p_C.sum()):
        length = int(np.clip(generator.lognormal(np.log(28), 0.5), 4, 200))
        text = [f"w{n}" for n in generator.integers(0, 5000, length)]
        text[int(generator.integers(0, length))] = f"c{label}"
        lines.append(f"{' '.join(text)},class {label}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def config_of(folder: Path, name: str, **sections: Any) -> dict[str, Any]:
    """Values of a config that trains this model on these rows."""
    values: dict[str, Any] = {
        "run": {"name": name, "output_dir": str(folder / "runs")},
        "model": {"name": str(folder / "model"), "max_length": 256},
        "data": {"source": str(folder / "rows.csv"), "text_column": "text", "label_column": "label"},
        "loss": {"class_weights": "balanced"},
        "training": {"max_steps": 30, "per_device_train_batch_size": 32, "learning_rate": 1e-4, "use_cpu": DEVICE.type == "cpu"},
    }
    for section, content in sections.items():
        values[section] = values.get(section, {}) | content
    return values


def train(folder: Path, name: str, *, share: float | None = None, **sections: Any) -> tuple[Path, str]:
    """Train by the command in a process of its own; the run folder and what it printed."""
    config = folder / f"{name}.yaml"
    config.write_text(json.dumps(config_of(folder, name, **sections)), encoding="utf-8")
    limit = f"import torch; torch.cuda.set_per_process_memory_fraction({share}); " if share else ""
    code = f"{limit}import sys; sys.argv = ['equipoise', 'train', '--config', {str(config)!r}]; from trainer.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "HF_HOME": str(folder / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False, timeout=240)
    told = done.stdout + done.stderr
    if done.returncode:
        raise Failed(f"train ended with code {done.returncode}: {told[-1500:]}")
    return folder / "runs" / name, told


def weights_of(run: Path) -> torch.Tensor:
    """All weights of a run's model as one vector."""
    from safetensors.torch import load_file

    return torch.cat([tensor.flatten().double() for _, tensor in sorted(load_file(run / "model/model.safetensors").items())])


def check_run() -> str:
    """The command trains, with bfloat16 by default on a GPU that gains from it, and metrics.json tells of it."""
    run, _ = train(FOLDER, "whole")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    config = (run / "config.yaml").read_text(encoding="utf-8")
    figures = {name: value for name, value in metrics["training"].items() if isinstance(value, int | float)}
    if DEVICE.type == "cuda" and "bf16: true" not in config and torch.cuda.get_device_capability()[0] >= 8:
        raise Failed("bf16 is not the default")
    split = metrics.get("test", metrics.get("validation"))
    return f"macro F1 {split['macro_f1']:.3f}; " + ", ".join(f"{name} {value:,.4g}" for name, value in figures.items())


def check_resume() -> str:
    """A run killed by a signal half-way ends with the weights of the unbroken one."""
    training = {"training": {"max_steps": 12, "save_strategy": "steps", "save_steps": 4, "per_device_train_batch_size": 32}}
    first, _ = train(FOLDER, "first", **training)
    again, _ = train(FOLDER, "again", **training)
    config = FOLDER / "broken.yaml"
    config.write_text(json.dumps(config_of(FOLDER, "broken", **training)), encoding="utf-8")
    stop = (
        "import os, signal, sys; from trainer.training.weighted_trainer import WeightedTrainer as W; old, n = W.training_step, []\n"
        "def step(self, *a, **k):\n    n.append(1)\n    if len(n) == 7: os.kill(os.getpid(), signal.SIGKILL)\n    return old(self, *a, **k)\n"
        f"W.training_step = step; sys.argv = ['equipoise', 'train', '--config', {str(config)!r}]\nfrom trainer.cli import main; main()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "HF_HOME": str(FOLDER / "cache")}
    done = subprocess.run([sys.executable, "-c", stop], capture_output=True, text=True, env=environment, check=False, timeout=240)
    if done.returncode != -9:
        raise Failed(f"the run that was to be killed ended with {done.returncode}: {done.stderr[-800:]}")
    broken, told = train(FOLDER, "broken", **training)
    if "Resuming from" not in told:
        raise Failed(f"the killed run was not resumed: {told[-800:]}")
    noise, error = relative(weights_of(again), weights_of(first)), relative(weights_of(broken), weights_of(first))
    words = f"two unbroken runs differ by {noise:.1e}, the resumed one by {error:.1e}"
    if error > 2 * noise:
        raise Failed(words)
    return words


def check_memory() -> str:
    """A pass that does not fit is halved, and the run ends well."""
    if DEVICE.type != "cuda":
        raise Skipped("needs a CUDA GPU")
    total = torch.cuda.get_device_properties(0).total_memory
    training = {"max_steps": 6, "per_device_train_batch_size": 1024, "save_strategy": "steps", "save_steps": 2}
    _, told = train(FOLDER, "tight", share=4e9 / total, speed={"tokens_per_pass": 65_536}, training=training)
    notes = re.findall(r"the GPU ran out of memory[^\n]*", told)
    if not notes:
        raise Failed("memory was never too small: the check needs a smaller share")
    return f"{len(notes)} times: {notes[-1]}"


def check_serving() -> str:
    """The server answers as the saved model does; latency of single texts, and texts a second."""
    run = FOLDER / "runs/whole"
    if not (run / "metrics.json").is_file():
        raise Skipped("needs the run of the check 'run'")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "trainer", "serve", str(run), "--port", "0"]
    command += ["--device", "cpu"] if DEVICE.type == "cpu" else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        assert process.stdout is not None
        lines: list[str] = []
        address = None
        while address is None:
            line = process.stdout.readline()
            if not line:
                raise Failed(f"the server ended: {''.join(lines)[-800:]}")
            lines.append(line)
            address = re.search(r"http://127\.0\.0\.1:\d+", line)
        url = address.group()
        deadline = time.perf_counter() + 90
        while True:
            try:
                urlopen(f"{url}/ready", timeout=5).read()
                break
            except OSError:
                if time.perf_counter() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.2)
        texts = [line.rpartition(",")[0] for line in (FOLDER / "rows.csv").read_text(encoding="utf-8").splitlines()[1:513]]

        def ask(inputs: Any) -> Any:
            request = Request(url, json.dumps({"inputs": inputs}).encode(), {"Content-Type": "application/json"})
            return json.loads(urlopen(request, timeout=60).read())

        for text in texts[:20]:
            ask(text)
        seconds = []
        for text in texts[:200]:
            begun = time.perf_counter()
            ask(text)
            seconds.append(time.perf_counter() - begun)
        ask(texts)
        begun = time.perf_counter()
        for _ in range(3):
            answers = ask(texts)
        rate = 3 * len(texts) / (time.perf_counter() - begun)
    finally:
        process.terminate()
        process.wait(30)
    from trainer.delivery.predict import Classifier

    expected = Classifier.load(str(run)).predict(texts)
    wrong = sum(answer[0]["label"] != prediction.label for answer, prediction in zip(answers, expected, strict=True))
    if wrong:
        raise Failed(f"{wrong} of {len(texts)} answers differ from the saved model's")
    return f"p50 {1000 * median(seconds):.1f} ms, p99 {1000 * sorted(seconds)[197]:.1f} ms a text; {rate:,.0f} texts/s in requests of {len(texts)}"


class Clock(TrainerCallback):
    """Seconds of the steps behind the first ten, which warm up."""

    def on_step_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        """Start once."""
        if state.global_step == 10:
            wait()
            self.start = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop once the device has done its work."""
        wait()
        self.seconds = time.perf_counter() - self.start


def wait() -> None:
    """Until the device has done its work."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def stock_trainer(model: Any, rows: TokenisedRows, *, bf16: bool, batch: int, steps: int, callbacks: Any) -> Trainer:
    """transformers.Trainer as its documentation shows it; bf16 with what its arguments offer for speed."""
    tuned = {"bf16": True, "train_sampling_strategy": "group_by_length"} if bf16 else {}
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(), max_steps=steps, per_device_train_batch_size=batch, save_strategy="no", logging_strategy="no",
        report_to="none", disable_tqdm=True, optim="adamw_torch_fused", use_cpu=DEVICE.type == "cpu", **tuned,
    )  # fmt: skip

    def collate(listed: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = -(-max(len(row["input_ids"]) for row in listed) // 8) * 8
        ids, mask = torch.zeros(len(listed), longest, dtype=torch.long), torch.zeros(len(listed), longest, dtype=torch.long)
        for n, row in enumerate(listed):
            ids[n, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
            mask[n, : len(row["input_ids"])] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([row["labels"] for row in listed])}

    return Trainer(model, arguments, collate, [rows[n] for n in range(len(rows))], callbacks=callbacks)  # type: ignore[arg-type]


def check_speed() -> str:
    """Rows a second and peak memory of training, ours against the stock Trainer, in one process and in turn."""
    steps = 15 if DEVICE.type == "cpu" else 110
    table = ["| model | rows | side | rows/s | peak MiB | against stock bf16 |", "| --- | --- | --- | ---: | ---: | ---: |"]
    for name in ("distilbert", "bert-base", "modernbert-base"):
        for kind, typical, longest, batch in (("tweets", 28, 128, 32), ("mixed", 60, 512, 32), ("tweets, batch 256", 28, 128, 256)):
            rows = random_rows(batch * steps, typical=typical, longest=longest if DEVICE.type == "cuda" else 64)
            sides: dict[str, Callable[[list[Any]], Any]] = {
                "stock float32": lambda c, n=name, r=rows, b=batch: stock_trainer(build(n, dropout=True), r, bf16=False, batch=b, steps=steps, callbacks=c),
                "stock bf16": lambda c, n=name, r=rows, b=batch: stock_trainer(build(n, dropout=True), r, bf16=True, batch=b, steps=steps, callbacks=c),
                "ours padded": lambda c, n=name, r=rows, b=batch: our_trainer(
                    build(n, dropout=True), r, bf16=True, batch=b, steps=steps, callbacks=c, packing=False
                ),
                "ours": lambda c, n=name, r=rows, b=batch: our_trainer(build(n, dropout=True), r, bf16=True, batch=b, steps=steps, callbacks=c),
            }
            found: dict[str, tuple[float, float]] = {}
            for side, make in sides.items():
                if time.perf_counter() > DEADLINE:
                    PRINTED.write("\n".join(table) + "\n")
                    if len(table) == 2:
                        raise Skipped("time was up before a model was measured")
                    return f"time was up within {name}, {kind}; " + str(len(table) - 2) + " rows measured"
                clock = Clock()
                if DEVICE.type == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                make([clock]).train()
                memory = torch.cuda.max_memory_allocated() / 2**20 if DEVICE.type == "cuda" else 0.0
                found[side] = ((steps - 10) * batch / clock.seconds, memory)
            for side, (rate, memory) in found.items():
                table.append(f"| {name} | {kind} | {side} | {rate:,.0f} | {memory:,.0f} | {rate / found['stock bf16'][0]:.2f} |")
            print("\n".join(table[-4:]), flush=True)
    PRINTED.write("\n".join(table) + "\n")
    return f"{len(table) - 2} rows in the table"


def check_prediction() -> str:
    """Rows a second of prediction in float32 and bfloat16, ours against a padded loop in the order of the file."""
    rows = random_rows(400 if DEVICE.type == "cpu" else 20_000, typical=40, longest=256 if DEVICE.type == "cuda" else 64)
    model = build("distilbert")
    padded = copy.deepcopy(model).to(DEVICE).eval()
    found = {}
    for bf16 in (False, True):
        with torch.no_grad(), autocast(bf16):
            expected = []
            for _turn in range(2):  # the first warms up
                expected.clear()
                wait()
                begun = time.perf_counter()
                for start in range(0, len(rows), 64):
                    batch = Collator(Padding())(rows.__getitems__(np.arange(start, min(start + 64, len(rows)))))
                    inputs = {name: value.to(DEVICE) for name, value in batch.items() if name != "labels"}
                    expected.append(padded(**inputs).logits.float())
                wait()
                found[f"padded {'bf16' if bf16 else 'float32'}"] = len(rows) / (time.perf_counter() - begun)
    trainer = our_trainer(model, rows, bf16=False, batch=32, steps=1)
    for _ in range(2):
        begun = time.perf_counter()
        logits = trainer.predict_logits(rows)
        found["ours float32"] = len(rows) / (time.perf_counter() - begun)
    error = relative(torch.from_numpy(logits).double(), torch.cat(expected).double().cpu())
    if not error < 0.05:
        raise Failed(f"logits differ by {error:.1e} from the padded ones in bfloat16")
    return ", ".join(f"{side} {rate:,.0f} rows/s" for side, rate in found.items()) + f"; differ by {error:.1e} from bf16"


CHECKS: dict[str, Callable[[], str]] = {
    "packing": check_packing,
    "gradient": check_gradient,
    "run": check_run,
    "resume": check_resume,
    "memory": check_memory,
    "waiting": check_waiting,
    "serving": check_serving,
    "prediction": check_prediction,
    "speed": check_speed,
}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DEADLINE = float("inf")
FOLDER = Path()
PRINTED = io.StringIO()


@contextmanager
def exact_products() -> Iterator[None]:
    """Float32 products in float32, not in TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield


def one(name: str) -> dict[str, Any]:
    """The outcome of one check."""
    begun = time.perf_counter()
    outcome: dict[str, Any] = {"check": name}
    try:
        if begun > DEADLINE:
            raise Skipped("time was up")
        with exact_products():
            outcome |= {"result": "pass", "found": CHECKS[name]()}
    except Skipped as reason:
        outcome |= {"result": "skipped", "found": str(reason)}
    except Exception as error:
        outcome |= {"result": "FAIL", "found": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    outcome["seconds"] = round(time.perf_counter() - begun, 1)
    print(f"{name:11s} {outcome['result']:8s} {outcome['seconds']:6.1f} s  {outcome['found'][:1500]}", flush=True)
    return outcome


def main() -> None:
    """Run the checks."""
    global DEVICE, DEADLINE, FOLDER
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="on the CPU, with small models")
    parser.add_argument("--minutes", type=float, default=8.0, help="no check begins later, and the speed table ends")
    parser.add_argument("--out", type=Path, help="folder for gpu.json and gpu.txt")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    given = parser.parse_args()
    DEADLINE = time.perf_counter() + 60 * given.minutes
    if given.cpu:
        DEVICE = torch.device("cpu")
    transformers_logging.set_verbosity_error()
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else platform.processor() or "CPU"
    import transformers

    about = {"device": name, "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps(about), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        FOLDER = make_folder(Path(folder), num_rows=400 if given.cpu else 6000)
        outcomes = [one(check) for check in given.only]
    print(PRINTED.getvalue())
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "gpu.json").write_text(json.dumps({"about": about, "checks": outcomes}, indent=1), encoding="utf-8")
        (given.out / "gpu.txt").write_text(PRINTED.getvalue(), encoding="utf-8")
    sys.exit(any(outcome["result"] == "FAIL" for outcome in outcomes))


if __name__ == "__main__":
    main()

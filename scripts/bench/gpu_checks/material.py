"""Models of real shapes with random weights, made-up rows, and trainers of both sides."""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from trainer.data.tokens.tokenise import TokenisedRows
from trainer.training.arguments import build_arguments
from trainer.training.batches.batching import Collator
from trainer.training.run_trainer import RunTrainer

NUM_LABELS, VOCABULARY, NUM_WORDS = 8, 30_522, 5_000
WEIGHTS_C = np.linspace(0.4, 1.6, NUM_LABELS)
ROBERTA = {"vocab_size": 50_265, "max_position_embeddings": 514, "pad_token_id": 1}
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
LARGE: dict[str, tuple[str, dict[str, int]]] = {
    "minilm": ("Bert", MINILM),
    "distilbert": ("DistilBert", {}),
    "bert-base": ("Bert", {}),
    "roberta-base": ("Roberta", ROBERTA),
    "modernbert-base": ("ModernBert", {"max_position_embeddings": 1024}),
}
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
}
SMALL_DISTIL = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96}
SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


class Skipped(Exception):
    """A check has no sense here; its text says why."""


class Failed(Exception):
    """A check measured what must not be; its text says what."""


@dataclass(frozen=True)
class Bench:
    """What every check is given.

    Attributes:
        folder: that all checks share, with a model, rows and runs.
        seconds: that this check may take.
    """

    device: torch.device
    folder: Path
    seconds: float
    begun: float

    @property
    def on_gpu(self) -> bool:
        """Whether a CUDA GPU is checked."""
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds that this check still has."""
        return self.seconds - (time.monotonic() - self.begun)

    def wait(self) -> None:
        """Wait until the device has done its work."""
        if self.on_gpu:
            torch.cuda.synchronize()


def build(bench: Bench, name: str, *, dropout: bool = False, attention: str | None = None) -> Any:
    """Return a classifier with random weights: of the real shape on a GPU, small on a CPU.

    Args:
        attention: one of transformers' implementations; None for its default.
    """
    kind, sizes = LARGE[name]
    if not bench.on_gpu:
        sizes = sizes | (SMALL_DISTIL if kind == "DistilBert" else SMALL)
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    names = ("dropout", "attention_dropout") if kind == "DistilBert" else names
    rates = {} if dropout or kind == "ModernBert" else dict.fromkeys(names, 0.0)
    config = getattr(transformers, f"{kind}Config")(**sizes, **rates, num_labels=NUM_LABELS)
    torch.manual_seed(0)
    with bench.device:
        return transformers.AutoModelForSequenceClassification.from_config(
            config, **({"attn_implementation": attention} if attention else {})
        )


def random_rows(count: int, *, typical: int = 28, longest: int = 256) -> TokenisedRows:
    """Rows of made-up token ids: lengths as of tweets (log-normal), classes skewed."""
    generator = np.random.default_rng(0)
    lengths_N = np.clip(generator.lognormal(np.log(typical), 0.5, count), 4, longest).astype(
        np.int64
    )
    ids = generator.integers(200, VOCABULARY - 200, lengths_N.sum()).astype(np.int32)
    label_ids_N = generator.choice(NUM_LABELS, count, p=shares(40))
    offsets_N1 = np.r_[0, np.cumsum(lengths_N)]
    return TokenisedRows({"input_ids": ids}, offsets_N1, label_ids_N, np.zeros(count, np.bool_))


def shares(ratio: float) -> Any:
    """Skewed shares of the classes, the first so many times as large as the last."""
    p_C = np.geomspace(1, 1 / ratio, NUM_LABELS)
    return p_C / p_C.sum()


class Padding:
    """What a collator of ours asks of a tokenizer, without one."""

    pad_token_id, padding_side, model_input_names = 0, "right", ("input_ids", "attention_mask")
    pad_token_type_id = 0

    def save_pretrained(self, *_: Any, **__: Any) -> None:
        """Nothing to save."""


def our_trainer(
    bench: Bench,
    model: Any,
    rows: TokenisedRows,
    *,
    bf16: bool,
    batch: int,
    steps: int,
    callbacks: Any = (),
    **values: Any,
) -> RunTrainer:
    """A RunTrainer as a config would build it.

    Args:
        values: other keys of the section `training`, and options of the class.
    """
    options = {name: values.pop(name) for name in ("packing", "tokens_per_pass") if name in values}
    training = {
        "per_device_train_batch_size": batch,
        "max_steps": steps,
        "bf16": bf16,
        "use_cpu": not bench.on_gpu,
        "learning_rate": 2e-5,
        "optim": "adamw_torch_fused",
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_strategy": "no",
        "train_sampling_strategy": "group_by_length",
    }
    return RunTrainer(
        model=model,
        args=build_arguments(
            training | values, checkpoints=Path(tempfile.mkdtemp(dir=bench.folder)), seed=0
        ),
        train_dataset=rows,
        data_collator=Collator(Padding(), multiple=8 if bf16 else 1),
        class_weights=WEIGHTS_C,
        sampling="group_by_length",
        callbacks=list(callbacks),
        **options,
    )


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    return float((found - expected).norm() / expected.norm())


def make_material(bench: Bench) -> None:
    """Write a model with a tokenizer, and a CSV of made-up texts, unless the folder has them."""
    rows = bench.folder / "rows.csv"
    if rows.exists():
        return
    _save_tokenizer(bench.folder / "model")
    build(bench, "distilbert", dropout=True).base_model.save_pretrained(bench.folder / "model")
    generator = np.random.default_rng(0)
    lines = ["text,label"]
    for label in generator.choice(NUM_LABELS, 6000 if bench.on_gpu else 400, p=shares(20)):
        length = int(np.clip(generator.lognormal(np.log(28), 0.5), 4, 200))
        text = [f"w{n}" for n in generator.integers(0, NUM_WORDS, length)]
        text[int(generator.integers(0, length))] = f"c{label}"
        lines.append(f"{' '.join(text)},class {label}")
    rows.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = [f"w{n}" for n in range(NUM_WORDS)] + [f"c{c}" for c in range(NUM_LABELS)]
    vocabulary = {token: n for n, token in enumerate([*SPECIAL.values(), *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    names = {f"{name}_token": token for name, token in SPECIAL.items()}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=512, **names
    ).save_pretrained(folder)


def config_of(bench: Bench, name: str, **sections: Any) -> dict[str, Any]:
    """Values of a config that trains that model on those rows."""
    make_material(bench)
    training = {
        "max_steps": 30,
        "per_device_train_batch_size": 32,
        "learning_rate": 1e-4,
        "use_cpu": not bench.on_gpu,
    }
    values: dict[str, Any] = {
        "run": {"name": name, "output_dir": str(bench.folder / "runs")},
        "model": {"name": str(bench.folder / "model"), "max_length": 256},
        "data": {
            "source": str(bench.folder / "rows.csv"),
            "text_column": "text",
            "label_column": "label",
        },
        "loss": {"class_weights": "balanced"},
        "training": training,
    }
    for section, content in sections.items():
        values[section] = values.get(section, {}) | content
    return values


def config_file(bench: Bench, name: str, **sections: Any) -> Path:
    """The same, as a file."""
    path = bench.folder / f"{name}.yaml"
    path.write_text(json.dumps(config_of(bench, name, **sections)), encoding="utf-8")
    return path


@contextmanager
def memory_limited(bench: Bench, num_bytes: int) -> Iterator[None]:
    """Within, this process may use so many bytes of the GPU."""
    total = torch.cuda.get_device_properties(bench.device).total_memory
    torch.cuda.set_per_process_memory_fraction(num_bytes / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

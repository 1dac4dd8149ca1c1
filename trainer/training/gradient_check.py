"""Does the gradient of a Trainer depend on how an optimizer step is cut into batches?"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Trainer

TOLERANCE = 1e-3
"""Largest relative difference that float32 rounding explains; the known faults exceed 0.1."""


@dataclass(frozen=True)
class GradientCheck:
    """The gradients of one optimizer step, cut in several ways.

    Attributes:
        differences: {rows of each batch: norm of the difference from the gradient of the uncut
            step, divided by the norm of that gradient}.
        ratios: {rows of each batch: norm of the gradient, divided by that of the uncut step}.
        tolerance: largest difference that passes.

    Example:
        >>> print(GradientCheck({(4, 4): 2e-7, (1,) * 8: 0.31}, {(4, 4): 1.0, (1,) * 8: 1.24}))
        The gradient DEPENDS on how a step is cut (tolerance 0.001).
          4 + 4 rows: norm x 1.0000, difference 2e-07
          1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 rows: norm x 1.2400, difference 0.31
    """

    differences: dict[tuple[int, ...], float]
    ratios: dict[tuple[int, ...], float]
    tolerance: float = TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether no way of cutting changes the gradient beyond the tolerance.

        Example:
            >>> GradientCheck({(4, 4): 2e-7}, {(4, 4): 1.0}).passed
            True
        """
        return max(self.differences.values()) <= self.tolerance

    def __bool__(self) -> bool:
        """Return `passed`, so that `assert check_gradient(trainer)` works."""
        return self.passed

    def __str__(self) -> str:
        """Return a table, one line for each way of cutting."""
        verdict = "does not depend" if self.passed else "DEPENDS"
        lines = [f"The gradient {verdict} on how a step is cut (tolerance {self.tolerance:g})."]
        for sizes, difference in self.differences.items():
            words = " + ".join(map(str, sizes))
            lines.append(
                f"  {words} rows: norm x {self.ratios[sizes]:.4f}, difference {difference:.2g}"
            )
        return "\n".join(lines)


def check_gradient(
    trainer: Trainer, *, num_rows: int = 8, tolerance: float = TOLERANCE
) -> GradientCheck:
    """Compute the gradient of the same rows as one batch and cut into several, and compare them.

    The rows are the first `num_rows` of `trainer.train_dataset`; dropout is off. Weights,
    gradients, random state and settings of the trainer are as before when it returns. Run it in one
    process, before training.

    Args:
        trainer: any transformers.Trainer with a train_dataset that has a length.
        num_rows: rows of the optimizer step, 4 or more. The labels should differ among them.
        tolerance: largest relative difference of gradients that passes.
    Returns:
        The differences; true if the gradient depends on the rows of a step alone.
    Raises:
        ValueError: `num_rows` is below 4 or above the number of training rows.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification, TrainingArguments
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        >>> config = BertConfig(vocab_size=20, intermediate_size=8, **sizes)
        >>> model = BertForSequenceClassification(config)
        >>> rows = [{"input_ids": [3, 5 + number], "labels": number % 2} for number in range(8)]
        >>> arguments = TrainingArguments("out", report_to="none", use_cpu=True)
        >>> from trainer import WeightedTrainer
        >>> check_gradient(WeightedTrainer(model, arguments, train_dataset=rows)).passed
        True
        >>> check_gradient(Trainer(model, arguments, train_dataset=rows)).passed
        False
    """
    dataset: Any = trainer.train_dataset
    if num_rows < 4 or len(dataset) < num_rows:
        raise ValueError(f"num_rows is {num_rows}; give 4 to {len(dataset)}, the training rows")
    rows = _collated_rows(trainer, num_rows)
    third = max(num_rows // 3, 1)
    cuts = [
        (num_rows // 2, num_rows - num_rows // 2),
        (third, num_rows - third),
        (1,) * num_rows,
    ]
    with _undisturbed(trainer):
        whole = _gradient(trainer, rows, (num_rows,))
        norm = whole.norm()
        cut = {sizes: _gradient(trainer, rows, sizes) for sizes in cuts}
        differences = {sizes: float((g - whole).norm() / norm) for sizes, g in cut.items()}
        ratios = {sizes: float(g.norm() / norm) for sizes, g in cut.items()}
    return GradientCheck(differences, ratios, tolerance)


def _collated_rows(trainer: Trainer, num_rows: int) -> Any:
    """Return a function from a slice of the rows to a batch of the trainer's DataLoader."""
    loader = trainer.get_train_dataloader()
    base = getattr(loader, "base_dataloader", loader)
    items = [base.dataset[row] for row in range(num_rows)]
    return lambda start, end: base.collate_fn(items[start:end])


def _gradient(trainer: Trainer, batch_of: Any, sizes: tuple[int, ...]) -> torch.Tensor:
    """Return the gradient of a step that is cut into batches of these sizes, as one vector."""
    ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    batches = iter([batch_of(end - size, end) for size, end in zip(sizes, ends, strict=True)])
    trainer.args.gradient_accumulation_steps = len(sizes)
    trainer.current_gradient_accumulation_steps = len(sizes)
    samples, num_items = trainer.get_batch_samples(batches, len(sizes), trainer.args.device)
    model: Any = trainer.model
    model.zero_grad(set_to_none=True)
    for batch in samples:
        trainer.training_step(model, batch, num_items)
    found = [p.grad.detach().flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat(found).float()


@contextmanager
def _undisturbed(trainer: Trainer) -> Iterator[None]:
    """Keep dropout off, and put back gradients, settings and random state at the end."""
    model: Any = trainer.model
    was_training, steps = model.training, trainer.args.gradient_accumulation_steps
    current = getattr(trainer, "current_gradient_accumulation_steps", steps)
    gradients = {name: p.grad for name, p in model.named_parameters()}
    model.to(trainer.args.device).eval()
    model.train = lambda mode=True: model  # training_step would switch dropout on
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        del model.train
        model.train(was_training)
        for name, parameter in model.named_parameters():
            parameter.grad = gradients[name]
        trainer.args.gradient_accumulation_steps = steps
        trainer.current_gradient_accumulation_steps = current

"""The settings that suit some rows: split, length in tokens, balancing, batches and training.

Each rule gives its keys of the YAML with a reason in words, for the comment beside them.
"""

from dataclasses import dataclass, field
from math import ceil
from typing import Any

from trainer.audit.advice import advise
from trainer.audit.facts import Facts
from trainer.config.yaml_source import read_values
from trainer.errors import counted
from trainer.training.length import PlannedLength

LENGTH_STEP = 16
FEW_MEASURED = 30
"""Rows of the rarest class that a test split should have."""
SHARES = ((0.9, 0.05), (0.8, 0.1), (0.7, 0.15), (0.6, 0.2))
"""Shares of train, and of validation and test each, from which the first that suits is taken."""
LARGEST_BATCH, SMALL_BATCH, SMALL_ROWS = 32, 16, 2_000
RATES = ((512, 1e-4), (896, 5e-5), (10**9, 2e-5))
"""Learning rate by the largest hidden size of a model: MiniLM has 384, base models 768. The shipped
configs train MiniLM with 1e-4, and the paper on BERT proposes 2e-5 to 5e-5."""


@dataclass(frozen=True)
class Reasoned:
    """Keys of one section of the YAML, and why some of them are set."""

    values: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def split_shares(smallest: int, label: str, num_rows: int, *, has_test: bool) -> Reasoned:
    """Return the shares of the splits that the rarest class allows.

    Args:
        smallest: rows of the rarest class, `label`.
        num_rows: rows to split.
        has_test: whether the test rows are given.
    """
    if has_test:
        reason = "test rows are given; these rows select the best epoch"
        return Reasoned({"train": 0.8, "validation": 0.2}, {"validation": reason})
    suits = (shares for shares in SHARES[:-1] if smallest * shares[1] >= FEW_MEASURED)
    train, rest = next(suits, SHARES[-1])
    measured = int(smallest * rest)
    words = f"the rarest class, '{label}', has {counted(smallest, 'row')}"
    reasons = {
        "train": f"of {num_rows:,} cleaned rows",
        "validation": "these rows select the best epoch",
        "test": f"used once, at the end; {words}, so about {measured} are here",
    }
    values: dict[str, Any] = {"train": train, "validation": rest, "test": rest}
    if smallest < len(values):
        values["rare_classes"] = "keep"
        reasons["test"] = "used once, at the end"
        reasons["rare_classes"] = f"{words}: too few for all splits; it is trained, not measured"
    return Reasoned(values, reasons)


def length_in_tokens(needed: int, limit: int, share_above: float, *, is_estimate: bool) -> Reasoned:
    """Return `max_length`.

    Args:
        needed: tokens that 99 % of the texts have at most.
        limit: most tokens that the model reads, or 512.
        share_above: share of the texts that are longer than the limit.
    """
    length = min(limit, max(LENGTH_STEP, ceil(needed / LENGTH_STEP) * LENGTH_STEP))
    about = " (estimated from characters: the tokenizer is not here)" if is_estimate else ""
    reason = f"tokens; 99 % of the texts have at most {needed:,}{about}"
    if needed > limit:
        share = f"{100 * share_above:.0f} %"
        reason = f"tokens, the default limit; {share} of the texts are longer and are cut"
    return Reasoned({"max_length": length}, {"max_length": reason})


def balancing(facts: Facts) -> dict[str, Reasoned]:
    """Return the sections that the first suitable rule of the audit sets, and its reason."""
    advice = advise(facts)[-1]  # of the kind "method"
    found = {section: dict(values) for section, values in read_values(advice.settings).items()}
    reason = f"imbalance ratio {facts.imbalance_ratio:.3g}; rule of the audit: {advice.condition}"
    plain = {"balance": {"method": "none"}, "loss": {"class_weights": "none"}}
    sections = {name: Reasoned(values) for name, values in (plain | found).items()}
    chosen = next(reversed(found))
    key = next(iter(found[chosen]))
    return sections | {chosen: Reasoned(found[chosen], {key: reason})}


def training(num_rows: int, num_classes: int, hidden_size: int) -> Reasoned:
    """Return learning rate, batch size and length of training.

    A new head learns each class from its own rows, so many classes need many steps. Small models
    need a larger learning rate than large ones. Early stopping ends a training that is long enough.

    Args:
        num_rows: training rows of an epoch.
        hidden_size: width of the model.
    """
    batch = SMALL_BATCH if num_rows < SMALL_ROWS else LARGEST_BATCH
    planned = PlannedLength(num_rows, num_classes, batch, epochs=0)
    epochs, steps_per_epoch = planned.enough_epochs, planned.steps_per_epoch
    rate = next(rate for size, rate in RATES if hidden_size <= size)
    return Reasoned(
        {
            "num_train_epochs": epochs,
            "learning_rate": rate,
            "warmup_steps": 0.1,
            "per_device_train_batch_size": batch,
        },
        {
            "num_train_epochs": f"{epochs * steps_per_epoch:,} steps for {num_classes:,}"
            " classes; it stops earlier if validation no longer improves",
            "learning_rate": f"for a model of width {hidden_size:,}",
            "warmup_steps": "share of the steps in which the learning rate rises",
            "per_device_train_batch_size": f"{steps_per_epoch:,} steps an epoch",
        },
    )

"""Read the rows as a config would, and propose every section of the YAML for them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trainer.arrays import Ints
from trainer.audit.facts import Facts
from trainer.config.sections.balancing import BalanceSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.config.sections.model import ModelSection
from trainer.data.cleaning.clean import CleanRows, clean_rows
from trainer.data.cleaning.lost_classes import refuse_lost_classes, refuse_unseen_labels
from trainer.data.cleaning.reasons import KEPT
from trainer.data.reading.row_access import take_rows
from trainer.data.reading.sources import read_rows
from trainer.data.split_rows import refuse_shared_groups, split_rows
from trainer.data.splitting.split import Splits
from trainer.data.summary import DataSummary
from trainer.errors import DataError, ModelError, counted, first_line
from trainer.files.cache import cache_dir
from trainer.starting import settings
from trainer.starting.language import choose_model, estimated_tokens
from trainer.starting.settings import Reasoned
from trainer.training.length import PlannedLength

SEED = 42
MOST_MEASURED = 2_000
"""Texts whose lengths in tokens are measured."""
HIDDEN_SIZE = 768
"""Width of DistilBERT, for a model that cannot be loaded here."""


@dataclass(frozen=True)
class Understood:
    """The rows of a config, cleaned and split.

    Attributes:
        data: the section.
        split: its shares and their reasons; no values if the data give all splits.
        notes: what was left out, in sentences.
    """

    data: DataSection
    clean: CleanRows
    split: Reasoned
    splits: Splits
    notes: list[str]

    @property
    def is_multi_label(self) -> bool:
        """Whether a row may have several labels."""
        return self.clean.label_matrix_NC is not None

    @property
    def rows_of(self) -> dict[str, int]:
        """The rows of each class, over all kept rows."""
        labels = self.clean.labels
        kept = self.clean.reasons_N == KEPT
        return dict(
            zip(labels.names, labels.counts(self.clean.targets[kept]).tolist(), strict=True)
        )

    @cached_property
    def distribution(self) -> DataSummary:
        """The classes of the training rows, without those that have none there."""
        clean = self.clean
        counts_C = clean.labels.counts(clean.targets[self.splits.train])
        present = np.flatnonzero(counts_C)
        names = [clean.labels.names[c] for c in present]
        return DataSummary(names, {"train": counts_C[present]}, counts_C[present])

    @property
    def facts(self) -> Facts:
        """What the rules of the audit look at."""
        found = self.distribution
        return Facts(
            imbalance_ratio=found.imbalance_ratio,
            minority_label=found.rarest_label,
            num_classes=len(found.labels),
            smallest_rows=int(found.natural_C.min()),
            smallest_share=float(found.natural_C.min() / len(self.splits.train)),
            is_multi_label=self.is_multi_label,
        )

    @cached_property
    def sample(self) -> list[tuple[str, str]]:
        """The texts of some training rows, with their pairs."""
        places = np.linspace(0, len(self.splits.train) - 1, MOST_MEASURED).astype(np.int64)
        rows = take_rows(
            self.clean.rows.table.select(["text", "text_pair"]),
            self.splits.train[np.unique(places)],
        )
        return [(row["text"] or "", row["text_pair"] or "") for row in rows.to_pylist()]


def understand(options: dict[str, Any]) -> Understood:
    """Read, clean and split the rows as training would.

    A group column that leaves a split without rows is left out, with a note.

    Args:
        options: keys of the section `data`.

    Raises:
        DataError: the rows cannot be used for training.
    """
    data = DataSection(**options)
    rows = read_rows(data, cache_dir())
    clean = clean_rows(rows, data.clean, data.drop_labels, data.label_map, data.labels_per_row)
    refuse_lost_classes(clean.lost)
    if data.pool == "train":
        refuse_unseen_labels(clean)
    split = _shares(clean, data)
    section = SplitSection(**split.values) if split.values else None
    try:
        splits = split_rows(clean, data, section, BalanceSection(), seed=SEED)
        if data.group_column:
            refuse_shared_groups(clean, splits)
    except DataError as error:
        if not data.group_column:
            raise
        without = understand({k: v for k, v in options.items() if k != "group_column"})
        without.notes.append(f"The group column is not used: {error}")
        return without
    return Understood(data, clean, split, splits, [])


def _shares(clean: CleanRows, data: DataSection) -> Reasoned:
    """Return the shares of the splits that are not given."""
    given = {name: bool(len(clean.kept(name))) for name in ("validation", "test")}
    if all(given.values()):
        return Reasoned()
    pool: Ints = clean.kept(data.pool)
    counts_C = clean.labels.counts(clean.targets[pool])
    present = np.flatnonzero(counts_C)
    rarest = present[counts_C[present].argmin()]
    name = clean.labels.names[rarest]
    found = settings.split_shares(int(counts_C[rarest]), name, len(pool), has_test=given["test"])
    if given["validation"]:
        del found.reasons["validation"]
    return found


def model_section(understood: Understood, name: str | None) -> tuple[Reasoned, int, list[str]]:
    """Return the section `model`, the width of the model, and notes.

    Args:
        name: the model that the user gave.

    Raises:
        ModelError: a folder or package that the user gave holds no text model.
    """
    from trainer.training.models.model_folder import resolve_name

    texts = understood.sample
    chosen, reason = (name, "") if name else choose_model([f"{a} {b}" for a, b in texts])
    notes, width, limit = list[str](), HIDDEN_SIZE, 512
    folder = Path(resolve_name(chosen))
    try:
        lengths_N, limit, width = _measured(chosen, texts)
        is_estimate = False
    except ModelError as error:
        if folder.is_dir():
            raise
        lengths_N, is_estimate = np.array([estimated_tokens(f"{a} {b}") for a, b in texts]), True
        notes.append(
            f"The model cannot be loaded here, so lengths are estimated: {first_line(error)} Give"
            " a folder with --model if you have one."
        )
    length = settings.length_in_tokens(
        int(np.percentile(lengths_N, 99)),
        limit,
        float((lengths_N > limit).mean()),
        is_estimate=is_estimate,
    )
    values = {"name": chosen} | length.values
    return Reasoned(values, ({"name": reason} if reason else {}) | length.reasons), width, notes


def _measured(name: str, texts: list[tuple[str, str]]) -> tuple[Ints, int, int]:
    """Return the tokens of the texts, the most that the model reads, and its width."""
    from trainer.training.models.model import load_pretrained_config, load_tokenizer

    section = ModelSection(name=name)
    config = load_pretrained_config(section)
    tokenizer, limit = load_tokenizer(section, config)
    has_pairs = any(second for _, second in texts)
    firsts, seconds = [first for first, _ in texts], [second for _, second in texts]
    found = tokenizer(firsts, seconds if has_pairs else None, verbose=False)
    lengths_N = np.array([len(ids) for ids in found["input_ids"]], np.int64)
    return lengths_N, limit, int(config.get_text_config().hidden_size)


def sections(
    understood: Understood, data: Reasoned, time_column: str | None, model: str | None, name: str
) -> tuple[dict[str, Reasoned], list[str]]:
    """Return every section of the YAML in order, and notes.

    Args:
        data: the keys of the section `data`, with reasons.
        time_column: a column of times, which a comment proposes for the split.
        model: the model that the user gave.
        name: name of the run.
    """
    chosen, width, notes = model_section(understood, model)
    balanced = settings.balancing(understood.facts)
    found = {
        "run": Reasoned({"name": name, "seed": SEED}, {"name": f"the run folder is runs/{name}"}),
        "model": chosen,
        "data": data,
        "split": _with_time(understood.split, time_column),
        **balanced,
        "training": settings.training(
            len(understood.splits.train), len(understood.distribution.labels), width
        ),
    }
    planned = PlannedLength.of(
        found["training"].values,
        len(understood.splits.train),
        len(understood.distribution.labels),
    )
    if planned.sentence:
        notes.append(planned.sentence)
    return {key: section for key, section in found.items() if section.values}, notes


def _with_time(split: Reasoned, time_column: str | None) -> Reasoned:
    if not time_column or "test" not in split.values:
        return split
    words = f"to test on the newest rows instead, add here: by_time: {time_column}"
    return Reasoned(split.values, split.reasons | {"test": f"{split.reasons['test']}; {words}"})


def counts_sentence(understood: Understood) -> str:
    """Return how many rows were read and dropped, in one sentence."""
    counts = understood.clean.counts
    dropped = [f"{n:,} {reason}" for reason, n in counts.items() if reason != "kept" and n]
    return f"{counted(counts['kept'], 'row')} kept; {'; '.join(dropped) or 'nothing dropped'}."

"""New training rows for rare classes, written by a language model from training rows.

Validation and test rows are used only to reject new texts that resemble them. No synthetic row
enters these splits.
"""

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trainer.arrays import Array, Bools, Ints
from trainer.config.sections.augment import AugmentSection
from trainer.data.augmenting.completion_cache import CompletionCache, cache_key
from trainer.data.augmenting.filters import (
    ClassProbability,
    Filters,
    KnownTexts,
    clean_completion,
    length_bounds,
    rows_to_fit_on,
)
from trainer.data.augmenting.generators import GENERATORS
from trainer.data.augmenting.prompts import (
    Completion,
    Generate,
    Messages,
    Refused,
    Request,
    Sources,
)
from trainer.data.cleaning.clean import CleanRows
from trainer.data.cleaning.reasons import KEPT
from trainer.data.cleaning.text_hashes import hash_texts
from trainer.data.labels.label_normalisation import in_data
from trainer.data.reading.row_access import take_rows
from trainer.data.splitting.split import Splits
from trainer.errors import AugmentError, ConfigError
from trainer.files.locks import locked
from trainer.progress import progress_bar

REFUSED = "refused by the server"
FEW_PROMPTS = 10
"""Up to so many prompts of a class, most may be refused by chance."""


@dataclass(frozen=True)
class SyntheticRow:
    """One accepted text.

    Attributes:
        label_ids: its labels, those of the examples in the prompt.
        prompt: the conversation that the model answered.
        source_rows: row ids of the examples in it; all are training rows.
        agreement: probability of the class by the filter's classifier; None if that filter is off.
    """

    text: str
    label_ids: tuple[int, ...]
    prompt: Messages
    source_rows: list[int]
    agreement: float | None


@dataclass(frozen=True)
class SyntheticRows:
    """The new rows of all classes.

    Attributes:
        rows: the new rows. A row with several labels counts for each of them.
        outcomes: {label: rows wanted, prompts used, rows accepted, and rejected texts by reason}
            for each class with too few rows.
    """

    rows: list[SyntheticRow]
    outcomes: dict[str, dict[str, Any]]


def write_rows(
    clean: CleanRows, splits: Splits, augment: AugmentSection, *, seed: int, cache_dir: Path
) -> SyntheticRows:
    """Write rows for each class with fewer than `target_rows` training rows.

    A new row has the labels of the rows that its prompt shows, which all have the same labels.
    Completions of an earlier call come from the cache.

    Raises:
        ConfigError: `labels` names a label that the data lacks.
        AugmentError: the server gives no usable answer.
        ModelError: the model cannot be loaded.
    """
    lacking = [
        (sources, (augment.target_rows or 0) - len(sources.texts))
        for sources in _sources(clean, splits.train, augment.labels)
    ]
    lacking = [(sources, wanted) for sources, wanted in lacking if wanted > 0]
    if not lacking:
        return SyntheticRows([], {})
    writer = _Writer(augment, _filters(clean, splits, augment), seed)
    rows: list[SyntheticRow] = []
    outcomes: dict[str, dict[str, Any]] = {}
    total = sum(wanted for _, wanted in lacking)
    with progress_bar(total=total, desc="Writing rows", unit=" rows") as bar:
        for sources, natural_wanted in lacking:
            label_id = clean.labels.names.index(sources.label)
            wanted = natural_wanted - sum(label_id in row.label_ids for row in rows)
            if wanted <= 0:  # rows of other labels have this one too
                continue
            path = cache_dir / f"completions-{cache_key(sources, augment, seed)}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            made_from = f"{augment.model or augment.base_url}, label '{sources.label}'"
            with locked(path.with_suffix(".lock"), "being written"):
                cache = CompletionCache(path, made_from)
                new, outcomes[sources.label] = writer.fill(sources, wanted, cache, bar)
            rows += new
    for label, outcome in outcomes.items():
        if outcome["accepted"] < outcome["wanted"]:
            warnings.warn(_shortfall(label, outcome), stacklevel=2)
    return SyntheticRows(rows, outcomes)


@dataclass(frozen=True)
class _Writer:
    """What all classes share while rows are written."""

    augment: AugmentSection
    filters: Filters
    seed: int

    @cached_property
    def generate(self) -> Generate:
        """The generator, opened on first use: if all completions are cached, it is not needed."""
        return GENERATORS[self.augment.generator](self.augment)

    def fill(
        self, sources: Sources, wanted: int, cache: CompletionCache, bar: Any
    ) -> tuple[list[SyntheticRow], dict[str, Any]]:
        """Return at most `wanted` accepted rows of one class, and their counts.

        The search stops after `max_attempts` prompts for each row wanted.
        """
        augment, most = self.augment, wanted * self.augment.max_attempts
        bounds = length_bounds(sources.texts, augment.min_characters, augment.max_characters)
        one_paragraph = not any("\n\n" in text for text in sources.texts)
        rows: list[SyntheticRow] = []
        rejected: Counter[str] = Counter()
        num_prompts = 0
        for request, completion in self._completions(sources, most, cache):
            num_prompts += 1
            if isinstance(completion, Refused):
                rejected[REFUSED] += 1
                is_sure = num_prompts >= FEW_PROMPTS or (num_prompts == most and not rows)
                if is_sure and 2 * rejected[REFUSED] > num_prompts:
                    raise AugmentError(
                        f"augment.base_url: {augment.base_url} refused {rejected[REFUSED]} of"
                        f" {num_prompts} prompts. The last answer: {completion.words}"
                        " Check augment.prompt, augment.examples and augment.model."
                    )
                continue
            text = clean_completion(completion, one_paragraph=one_paragraph)
            reason, agreement = self.filters.check(text, request.label_ids, bounds)
            if reason:
                rejected[reason] += 1
                continue
            shown = request.source_rows.tolist()
            rows.append(SyntheticRow(text, request.label_ids, request.messages, shown, agreement))
            bar.update(1)
            if len(rows) == wanted:
                break
        counts = {"wanted": wanted, "prompts": num_prompts, "accepted": len(rows)}
        return rows, {**counts, "rejected": dict(sorted(rejected.items()))}

    def _completions(
        self, sources: Sources, most: int, cache: CompletionCache
    ) -> Iterator[tuple[Request, Completion]]:
        """Yield requests and their completions, in the order of the attempts.

        The generator is asked only for completions that the cache lacks.
        """
        for start in range(0, most, self.augment.batch_size):
            batch = [
                sources.request(attempt, self.augment, self.seed)
                for attempt in range(start, min(start + self.augment.batch_size, most))
            ]
            missing = [request for request in batch if request.attempt not in cache.completions]
            if missing:
                for request, completion in self.generate(missing):
                    cache.add(request.attempt, completion)
            for request in batch:
                yield request, cache.completions[request.attempt]


def _sources(clean: CleanRows, train: Ints, labels: list[str] | None) -> Iterator[Sources]:
    """Yield the training rows of each class to be filled, in the order of the label ids."""
    names = clean.labels.names
    wanted = names if labels is None else in_data(labels, names, "augment.labels", ConfigError)
    for label_id, label in enumerate(names):
        if label in wanted:
            members = train[_has_label(clean.targets[train], label_id)]
            members = members[np.argsort(clean.text_hashes_N[members], kind="stable")]
            sets = [_label_ids(targets) for targets in clean.targets[members]]
            places = {own: number for number, own in enumerate(dict.fromkeys(sets))}
            yield Sources(
                label,
                members,
                _texts(clean, members),
                np.array([places[own] for own in sets], np.int64),
                {number: own for own, number in places.items()},
                names,
            )


def _has_label(targets: Array, label_id: int) -> Bools:
    """Return which rows have a label."""
    return np.asarray(targets == label_id if targets.ndim == 1 else targets[:, label_id])


def _label_ids(targets: Array) -> tuple[int, ...]:
    """Return the label ids of one row: of its label id, or of its flags (C,)."""
    return (int(targets),) if targets.ndim == 0 else tuple(np.flatnonzero(targets).tolist())


def _filters(clean: CleanRows, splits: Splits, augment: AugmentSection) -> Filters:
    """Return the filters, with all rows of all splits as known texts."""
    known, train = KnownTexts(augment.similarity, clean.text_hashes_N), splits.train
    ids = np.concatenate(list(splits.named.values()))
    starts = range(0, len(ids), 10_000)
    for start in progress_bar(starts, desc="Indexing rows", unit=" batches", delay=2):
        known.add(_texts(clean, ids[start : start + 10_000]))
    if augment.min_agreement == 0:
        return Filters(known, None, 0)
    fitted = train[rows_to_fit_on(clean.label_ids_N[train], clean.text_hashes_N[train])]
    classifier = ClassProbability(_texts(clean, fitted), clean.targets[fitted])
    return Filters(known, classifier, augment.min_agreement)


def _texts(clean: CleanRows, ids: Ints) -> list[str]:
    return take_rows(clean.rows.table.select(["text"]), ids)["text"].to_pylist()


def _shortfall(label: str, outcome: dict[str, Any]) -> str:
    reasons = "; ".join(
        f"{count} {reason}" for reason, count in Counter(outcome["rejected"]).most_common()
    )
    return (
        f"augment: label '{label}' got {outcome['accepted']} of the {outcome['wanted']} rows"
        f" that it lacks, from {outcome['prompts']} prompts. Rejected: {reasons}."
        " Raise augment.max_attempts, or choose a stronger augment.model."
    )


def add_rows(
    clean: CleanRows, splits: Splits, synthetic: SyntheticRows
) -> tuple[CleanRows, Splits]:
    """Append the synthetic rows to the rows and to the training split.

    The memory-mapped part of the table stays mapped.
    """
    size, table = len(synthetic.rows), clean.rows.table
    label_sets, matrix_NC = [row.label_ids for row in synthetic.rows], clean.label_matrix_NC
    is_several = matrix_NC is not None
    values = {
        "text": [row.text for row in synthetic.rows],
        "label": [
            json.dumps(names, ensure_ascii=False) if is_several else names[0]
            for names in ([clean.labels.names[c] for c in own] for own in label_sets)
        ],
    }
    if matrix_NC is not None:
        new_NC = np.zeros((size, matrix_NC.shape[1]), bool)
        for place, own in enumerate(label_sets):
            new_NC[place, list(own)] = True
        matrix_NC = np.r_[matrix_NC, new_NC]
    new = pa.table(
        {
            field.name: pa.array(values.get(field.name, [None] * size), field.type)
            for field in table.schema
        },
        schema=table.schema,
    )
    slot = clean.rows.slots_N[splits.train[0]]  # source or train
    rows = replace(
        clean.rows,
        table=pa.concat_tables([table, new]),
        text_hashes_N=np.r_[clean.text_hashes_N, hash_texts(new)],
        slots_N=np.r_[clean.rows.slots_N, np.full(size, slot)],
    )
    grown = replace(
        clean,
        rows=rows,
        reasons_N=np.r_[clean.reasons_N, np.full(size, KEPT, clean.reasons_N.dtype)],
        label_ids_N=np.r_[clean.label_ids_N, np.array([own[0] for own in label_sets], np.int64)],
        label_matrix_NC=matrix_NC,
        num_synthetic=size,
    )
    ids = np.arange(table.num_rows, table.num_rows + size)
    return grown, replace(splits, train=np.r_[splits.train, ids], synthetic=ids)


def records(
    synthetic: SyntheticRows, splits: Splits, labels: list[str], *, is_multi_label: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield a line of synthetic.jsonl for each row; `label` is a list in multi-label data."""
    for row_id, row in zip(splits.synthetic.tolist(), synthetic.rows, strict=True):
        own = [labels[label_id] for label_id in row.label_ids]
        yield {
            "row": row_id,
            "label": own if is_multi_label else own[0],
            "text": row.text,
            "agreement": row.agreement,
            "source_rows": row.source_rows,
            "prompt": row.prompt,
        }

"""New training rows for rare classes: prompts from a class's own training rows, completions kept on disk, texts judged, rows marked.

Validation and test rows serve to reject texts that resemble them and for nothing else; no synthetic row enters them.
"""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from trainer.arrays import Ints
from trainer.data.augmenting.filters import (
    Agreement,
    Judge,
    KnownTexts,
    clean_completion,
    length_bounds,
    rows_to_learn_from,
)
from trainer.data.augmenting.generators import (
    GENERATORS,
    Generate,
    Messages,
    Refused,
    Request,
    model_identity,
)
from trainer.data.balancing.balance import stage_generator
from trainer.data.cleaning.clean import CleanRows
from trainer.data.cleaning.reasons import KEPT
from trainer.data.cleaning.text_hashes import hash_texts
from trainer.data.labels.label_normalisation import in_data
from trainer.data.reading.row_access import take_rows
from trainer.data.splitting.split import Splits
from trainer.errors import AugmentError, ConfigError
from trainer.files.locks import locked, mark_used

if TYPE_CHECKING:
    from trainer.config.sections.augment import AugmentSection

CACHE_FORMAT = 2
"""Raise it when the same settings give other prompts, so that older completions are passed over."""
REFUSED = "refused by the server"
FEW_PROMPTS = 10
"""Prompts of a class up to which most may be refused by chance."""


@dataclass(frozen=True)
class SyntheticRow:
    """One accepted text.

    Attributes:
        prompt: the conversation that the model answered.
        source_rows: row ids of the examples in it, all of the training split.
        agreement: probability of the class by the filter's classifier; None where that filter is off.
    """

    text: str
    label_id: int
    prompt: Messages
    source_rows: list[int]
    agreement: float | None


@dataclass(frozen=True)
class SyntheticRows:
    """What was written for every class together.

    Attributes:
        outcomes: {label: rows wanted, prompts judged, accepted, and rejected by reason} of the classes that were filled up.
    """

    rows: list[SyntheticRow]
    outcomes: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Sources:
    """Training rows of one class, in an order that depends on their texts alone."""

    label: str
    label_id: int
    row_ids: Ints
    texts: list[str]

    def request(
        self, attempt: int, augment: "AugmentSection", seed: int
    ) -> tuple[Request, list[int]]:
        """(prompt with examples drawn for this attempt, row ids of the examples)."""
        generator = stage_generator(seed, "augment", self.label, attempt)
        drawn = generator.choice(
            len(self.texts), size=min(augment.examples, len(self.texts)), replace=False
        )
        examples = [self.texts[i][: augment.example_characters] for i in drawn]
        messages = build_prompt(augment.prompt, self.label, examples)
        return Request(attempt, messages, int(generator.integers(2**31))), self.row_ids[
            drawn
        ].tolist()


class CompletionCache:
    """Raw completions of one class by attempt, a JSON object a line; a line cut off by a kill is dropped, a damaged one passed over.

    Args:
        made_from: model and label, for the list of the command `cache`; kept in the first line.
    """

    def __init__(self, path: Path, made_from: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        self.completions: dict[int, str | Refused] = {}
        num_damaged = 0
        for line in whole.splitlines():
            try:
                record = json.loads(line)
                if record.get("attempt") is not None:
                    words = record.get("refused")
                    self.completions[int(record["attempt"])] = (
                        str(record["completion"]) if words is None else Refused(str(words))
                    )
            except (
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
            ):  # a disk that ran full or lost its power
                num_damaged += 1
        if num_damaged:
            warnings.warn(
                f"{path}: {num_damaged} damaged lines of the cache are passed over, and written anew.",
                stacklevel=2,
            )
        refused = [
            attempt
            for attempt, completion in self.completions.items()
            if isinstance(completion, Refused)
        ]
        if 2 * len(refused) > len(
            self.completions
        ):  # they stopped the augmentation: something was changed since
            for attempt in refused:
                del self.completions[attempt]
        if whole:
            mark_used(path)
        else:
            self._append({"made_from": made_from})

    def add(self, attempt: int, completion: str | Refused) -> None:
        """Keep a completion, or that there is none; it is on disk when this returns."""
        self.completions[attempt] = completion
        kept = (
            {"refused": completion.words}
            if isinstance(completion, Refused)
            else {"completion": completion}
        )
        self._append({"attempt": attempt, **kept})

    def _append(self, record: dict[str, Any]) -> None:
        with self.path.open("ab") as file:
            file.write((json.dumps(record) + "\n").encode())


def build_prompt(template: str, label: str, examples: list[str]) -> Messages:
    """The conversation that asks for one text.

    With {examples} in the template they stand in it as a list. Without, each is an earlier answer to the same question, which small
    models follow far better: SmolLM2-135M mostly talks about the list, but goes on with the turns.
    """
    listed = "\n".join(f"- {example}" for example in examples)
    question = {"role": "user", "content": template.format(label=label, examples=listed)}
    if "examples" in {name for _, name, _, _ in Formatter().parse(template)}:
        return [question]
    return [
        turn
        for example in examples
        for turn in (question, {"role": "assistant", "content": example})
    ] + [question]


def write_rows(
    clean: CleanRows, splits: Splits, augment: "AugmentSection", *, seed: int, cache_dir: Path
) -> SyntheticRows:
    """Rows for every class with fewer than `target_rows` training rows; what was written before comes from the cache.

    Raises:
        ConfigError: `labels` names a label that the data lacks.
        AugmentError: the server gives no usable answer.
        ModelError: the model cannot be loaded.
    """
    all_sources = [
        (sources, (augment.target_rows or 0) - len(sources.texts))
        for sources in _sources(clean, splits.train, augment.labels)
    ]
    short = [(sources, wanted) for sources, wanted in all_sources if wanted > 0]
    if not short:
        return SyntheticRows([], {})
    judge = _judge(clean, splits, augment)
    rows: list[SyntheticRow] = []
    outcomes: dict[str, dict[str, Any]] = {}
    total = sum(wanted for _, wanted in short)
    generate = _opened_on_use(augment)
    with tqdm(total=total, desc="Writing rows", unit=" rows", disable=None, leave=False) as bar:
        for sources, wanted in short:
            path = cache_dir / f"completions-{_cache_key(sources, augment, seed)}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            made_from = f"{augment.model or augment.base_url}, label '{sources.label}'"
            with locked(path.with_suffix(".lock"), "being written"):
                new, outcomes[sources.label] = _fill(
                    sources,
                    wanted,
                    augment,
                    judge,
                    CompletionCache(path, made_from),
                    generate,
                    seed,
                    bar,
                )
            rows += new
    for label, outcome in outcomes.items():
        if outcome["accepted"] < outcome["wanted"]:
            warnings.warn(_shortfall(label, outcome), stacklevel=2)
    return SyntheticRows(rows, outcomes)


def _fill(
    sources: Sources,
    wanted: int,
    augment: "AugmentSection",
    judge: Judge,
    cache: CompletionCache,
    generate: Generate,
    seed: int,
    bar: Any,
) -> tuple[list[SyntheticRow], dict[str, Any]]:
    """Accepted rows of one class, at most `wanted`, and their count; stops at `max_attempts` prompts for each row wanted."""
    bounds = length_bounds(sources.texts, augment.min_characters, augment.max_characters)
    one_paragraph = not any("\n\n" in text for text in sources.texts)
    rows: list[SyntheticRow] = []
    rejected: Counter[str] = Counter()
    num_prompts = 0
    for request, source_rows, completion in _completions(
        sources, wanted * augment.max_attempts, augment, cache, generate, seed
    ):
        num_prompts += 1
        if isinstance(completion, Refused):
            rejected[REFUSED] += 1
            if num_prompts >= FEW_PROMPTS:
                _stop_if_most_are_refused(rejected[REFUSED], num_prompts, completion, augment)
            continue
        text = clean_completion(completion, one_paragraph=one_paragraph)
        reason, agreement = judge.verdict(text, sources.label_id, bounds)
        if reason:
            rejected[reason] += 1
        else:
            rows.append(
                SyntheticRow(text, sources.label_id, request.messages, source_rows, agreement)
            )
            bar.update(1)
        if len(rows) == wanted:
            break
    if isinstance(completion, Refused) and not rows:
        _stop_if_most_are_refused(rejected[REFUSED], num_prompts, completion, augment)
    return rows, {
        "wanted": wanted,
        "prompts": num_prompts,
        "accepted": len(rows),
        "rejected": dict(sorted(rejected.items())),
    }


def _stop_if_most_are_refused(
    refused: int, num_prompts: int, last: Refused, augment: "AugmentSection"
) -> None:
    """Raises AugmentError where a server refuses more than half of the prompts of a class: it is not a few texts that it objects to."""
    if 2 * refused > num_prompts:
        raise AugmentError(
            f"augment.base_url: {augment.base_url} refused {refused} of {num_prompts} prompts; the last: {last.words}"
            " Check augment.prompt, augment.examples and augment.model."
        )


def _completions(
    sources: Sources,
    most: int,
    augment: "AugmentSection",
    cache: CompletionCache,
    generate: Generate,
    seed: int,
) -> Iterator[tuple[Request, list[int], str | Refused]]:
    """(request, source rows, completion) in the order of the attempts; the generator is asked for what the cache lacks."""
    for start in range(0, most, augment.batch_size):
        batch = [
            sources.request(attempt, augment, seed)
            for attempt in range(start, min(start + augment.batch_size, most))
        ]
        missing = [request for request, _ in batch if request.attempt not in cache.completions]
        if missing:
            for request, completion in generate(missing):
                cache.add(request.attempt, completion)
        for request, source_rows in batch:
            yield request, source_rows, cache.completions[request.attempt]


def _opened_on_use(augment: "AugmentSection") -> Generate:
    """The generator, loaded at its first call, so that a re-run from the cache loads no model and asks no server."""
    opened: list[Generate] = []

    def generate(requests: list[Request]) -> Iterable[tuple[Request, str | Refused]]:
        if not opened:
            opened.append(GENERATORS[augment.generator](augment))
        return opened[0](requests)

    return generate


def _sources(clean: CleanRows, train: Ints, labels: list[str] | None) -> list[Sources]:
    """Training rows of each class to be looked at, in the order of the label ids."""
    names = clean.labels.names
    wanted = names if labels is None else in_data(labels, names, "augment.labels", ConfigError)
    out = []
    for label_id, label in enumerate(names):
        if label in wanted:
            members = train[clean.label_ids_N[train] == label_id]
            members = members[np.argsort(clean.text_hashes_N[members], kind="stable")]
            out.append(Sources(label, label_id, members, _texts(clean, members)))
    return out


def _judge(clean: CleanRows, splits: Splits, augment: "AugmentSection") -> Judge:
    known = KnownTexts(augment.similarity, clean.text_hashes_N)
    for ids in splits.named.values():
        for start in tqdm(
            range(0, len(ids), 10_000),
            desc="Indexing rows",
            unit=" batches",
            delay=2,
            disable=None,
            leave=False,
        ):
            known.add(_texts(clean, ids[start : start + 10_000]))
    if augment.min_agreement == 0:
        return Judge(known, None, 0)
    lesson = splits.train[
        rows_to_learn_from(clean.label_ids_N[splits.train], clean.text_hashes_N[splits.train])
    ]
    return Judge(
        known, Agreement(_texts(clean, lesson), clean.label_ids_N[lesson]), augment.min_agreement
    )


def _texts(clean: CleanRows, ids: Ints) -> list[str]:
    return take_rows(clean.rows.table.select(["text"]), ids)["text"].to_pylist()


def _cache_key(sources: Sources, augment: "AugmentSection", seed: int) -> str:
    """Digest of everything that the raw completions of a class depend on, and of nothing that only judges them."""
    asked = ("prompt", "examples", "example_characters", "temperature", "top_p", "max_new_tokens")
    parts = [
        CACHE_FORMAT,
        seed,
        augment.generator,
        model_identity(augment),
        *(getattr(augment, name) for name in asked),
        sources.label,
    ]
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=16)
    for text in sources.texts:
        digest.update(
            hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        )
    return digest.hexdigest()


def _shortfall(label: str, outcome: dict[str, Any]) -> str:
    reasons = "; ".join(
        f"{count} {reason}"
        for reason, count in sorted(outcome["rejected"].items(), key=lambda item: -item[1])
    )
    words = f"augment: label '{label}' got {outcome['accepted']} of the {outcome['wanted']} rows it lacks from {outcome['prompts']} prompts"
    return f"{words}; rejected: {reasons}. Raise augment.max_attempts, or choose a stronger augment.model."


def add_rows(
    clean: CleanRows, splits: Splits, synthetic: SyntheticRows
) -> tuple[CleanRows, Splits]:
    """The rows with the synthetic ones behind them, which join the training split; the memory-mapped part stays mapped."""
    size, table = len(synthetic.rows), clean.rows.table
    label_ids_N = np.array([row.label_id for row in synthetic.rows], np.int64)
    values = {
        "text": [row.text for row in synthetic.rows],
        "label": [clean.labels.names[label_id] for label_id in label_ids_N],
    }
    new = pa.table(
        [
            pa.array(values.get(name, [None] * size), table.schema.field(name).type)
            for name in table.column_names
        ],
        schema=table.schema,
    )
    slot = clean.rows.slots_N[splits.train[0]]  # source or train
    rows = replace(
        clean.rows,
        table=pa.concat_tables([table, new]),
        text_hashes_N=np.r_[clean.text_hashes_N, hash_texts(new)],
        slots_N=np.r_[clean.rows.slots_N, np.full(size, slot)],
    )
    ids = np.arange(table.num_rows, table.num_rows + size)
    grown = replace(
        clean,
        rows=rows,
        reasons_N=np.r_[clean.reasons_N, np.full(size, KEPT, clean.reasons_N.dtype)],
        label_ids_N=np.r_[clean.label_ids_N, label_ids_N],
        num_synthetic=size,
    )
    return grown, replace(splits, train=np.r_[splits.train, ids], synthetic=ids)


def records(
    synthetic: SyntheticRows, splits: Splits, labels: list[str]
) -> Iterator[dict[str, Any]]:
    """A line of synthetic.jsonl for each row."""
    for row_id, row in zip(splits.synthetic.tolist(), synthetic.rows, strict=True):
        yield {
            "row": row_id,
            "label": labels[row.label_id],
            "text": row.text,
            "agreement": row.agreement,
            "source_rows": row.source_rows,
            "prompt": row.prompt,
        }

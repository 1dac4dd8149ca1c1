"""Completions on disk, so that an interrupted augmentation resumes without asking again."""

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

from trainer.config.sections.augment import AugmentSection
from trainer.data.augmenting.model_files import model_identity
from trainer.data.augmenting.prompts import Completion, Refused, Sources
from trainer.files.locks import mark_used

CACHE_FORMAT = 2
"""Raise it if the same settings give other prompts, so that older completions are not used."""
REQUEST_SETTINGS = (
    "prompt",
    "examples",
    "example_characters",
    "temperature",
    "top_p",
    "max_new_tokens",
)


class CompletionCache:
    """The raw completions of one class by attempt, one JSON object a line.

    A last line that was cut off by a killed process is removed; a damaged line is ignored, and its
    prompt is asked again.

    Args:
        made_from: model and label, kept in the first line for the command `cache`.
    """

    def __init__(self, path: Path, made_from: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.completions: dict[int, Completion] = {}
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(path, len(whole))
        num_damaged = 0
        for line in whole.splitlines():
            try:
                self.completions |= _read(json.loads(line))
            except (ValueError, LookupError, TypeError, AttributeError):
                num_damaged += 1
        if num_damaged:
            warnings.warn(
                f"{path}: {num_damaged} damaged lines of the cache are ignored and written again.",
                stacklevel=2,
            )
        answered = {a: text for a, text in self.completions.items() if isinstance(text, str)}
        if 2 * len(answered) < len(self.completions):
            # so many refusals stopped the augmentation: something was changed since, so ask again
            self.completions = dict(answered)
        if whole:
            mark_used(path)
        else:
            self._append({"made_from": made_from})

    def add(self, attempt: int, completion: Completion) -> None:
        """Keep a completion or a refusal; it is on disk when this returns."""
        self.completions[attempt] = completion
        if isinstance(completion, Refused):
            self._append({"attempt": attempt, "refused": completion.words})
        else:
            self._append({"attempt": attempt, "completion": completion})

    def _append(self, record: dict[str, Any]) -> None:
        with self.path.open("ab") as file:
            file.write((json.dumps(record) + "\n").encode())


def _read(record: dict[str, Any]) -> dict[int, Completion]:
    """Return the completion of a line by its attempt; nothing for the first line."""
    if record.get("attempt") is None:
        return {}
    refused = record.get("refused")
    completion = str(record["completion"]) if refused is None else Refused(str(refused))
    return {int(record["attempt"]): completion}


def cache_key(sources: Sources, augment: AugmentSection, seed: int) -> str:
    """Return a digest of everything that the raw completions of a class depend on.

    Settings that only filter completions are left out.
    """
    parts = [
        CACHE_FORMAT,
        seed,
        augment.generator,
        model_identity(augment),
        *(getattr(augment, name) for name in REQUEST_SETTINGS),
        sources.label,
    ]
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=16)
    for text in sources.texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(hashlib.blake2b(content, digest_size=16).digest())
    if len(sources.label_sets) > 1:
        digest.update(repr([sources.label_sets[n] for n in sources.set_ids_R.tolist()]).encode())
    return digest.hexdigest()

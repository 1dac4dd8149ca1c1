"""Which parts the page of a run holds, so that no page is replaced by one that tells less."""

from pathlib import Path

from trainer.errors import RunError

QUOTES = "texts of mistakes"
PARTS = {
    "95 % intervals": "95 % interval</th>",
    "class distribution": "<h3>Rows by class",
    "learning curves": "<h3>Learning curves</h3>",
    "class weights": "weights</summary>",
    "precision-recall curves": 'alt="Precision-recall curves"',
    "calibration": 'alt="Reliability',
    "answers by label": "rightly given</th>",
    "mistakes": '<ol class="mistakes">',
    QUOTES: "<blockquote",
    "environment": "data.fingerprint</td>",
}
"""{part: what only a page that holds it contains}."""


def refuse_poorer(page: Path, text: str, lacking: list[str], *, show_texts: bool) -> None:
    """Raises RunError when a page is there that holds parts which the new text lacks.

    Args:
        lacking: files that the run folder lacks.
        show_texts: whether quoted texts were asked for, so that their loss counts.
    """
    if not page.is_file() or not lacking:
        return
    there = page.read_text(encoding="utf-8", errors="replace")
    lost = [name for name, mark in PARTS.items() if mark in there and mark not in text]
    lost = [name for name in lost if show_texts or name != QUOTES]
    if lost:
        raise RunError(
            f"{page}: is kept, since a new page would lack its {', '.join(lost)}: the run folder lacks"
            f" {', '.join(lacking)}. Put them back from a copy, or give --output {page} to replace it all the same."
        )

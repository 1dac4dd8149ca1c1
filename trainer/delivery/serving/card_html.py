"""A model card to HTML that can stand in a page: its markup escaped, its pictures inside, nothing fetched, nothing run."""

import base64
import logging
import re
from pathlib import Path

from markdown_it import MarkdownIt

from trainer.files.links import target_outside

logger = logging.getLogger(__name__)

LARGEST_PICTURE = 5 * 2**20
"""Bytes; larger ones are left out, as they travel inside the page."""


def find_card(source: str | Path) -> Path | None:
    """README.md of a run folder, of the folder above a run's model, or of a model folder; None where there is none, as for a Hub id.

    A link that leads out of the folder is not followed, which is logged.
    """
    folder = Path(source).expanduser()
    places = (
        [folder, folder.parent]
        if folder.name == "model" and (folder.parent / "metrics.json").is_file()
        else [folder]
    )
    cards = (place / "README.md" for place in places)
    return next((card for card in cards if card.is_file() and _stays_inside(card)), None)


def card_html(path: Path) -> str:
    """HTML of a card without its metadata block.

    HTML in the Markdown is escaped, links have the schemes that markdown-it holds for safe, and of pictures only PNG and JPEG files that
    lie beside the card are shown, as data URIs. Links to files outside the card's folder are not followed.
    """
    text = re.sub(
        r"\A\s*---\n.*?\n---\n",
        "",
        path.read_text(encoding="utf-8", errors="replace"),
        flags=re.DOTALL,
    )
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for token in [*tokens, *(child for block in tokens for child in block.children or ())]:
        if (
            token.type in ("th_open", "td_open")
            and token.attrs.pop("style", None) == "text-align:right"
        ):
            token.attrs["class"] = "n"  # a strict Content-Security-Policy has no inline styles
        elif token.type == "image":
            token.attrs["src"] = _picture(path.parent, str(token.attrs.get("src", "")))
        elif token.type == "link_open":
            token.attrs |= {"rel": "noreferrer noopener", "target": "_blank"}
    return str(markdown.renderer.render(tokens, markdown.options, {}))


def _picture(folder: Path, name: str) -> str:
    """A picture beside the card as a data URI; empty for anything else."""
    path = folder / name
    kind = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}.get(path.suffix.lower())
    if (
        kind is None
        or Path(name).name != name
        or not path.is_file()
        or path.stat().st_size > LARGEST_PICTURE
    ):
        return ""
    if not _stays_inside(path):
        return ""
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _stays_inside(path: Path) -> bool:
    """Whether a file may be shown; a link out of its folder may not, and is logged."""
    target = target_outside(path, path.parent)
    if target is not None:
        logger.warning("%s is a link to %s, outside its folder, and is not shown.", path, target)
    return target is None

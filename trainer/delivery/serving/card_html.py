"""Convert a model card to HTML that fetches nothing and runs nothing."""

import base64
import logging
import re
from pathlib import Path

from markdown_it import MarkdownIt

from trainer.files.links import target_outside

logger = logging.getLogger(__name__)

LARGEST_PICTURE = 5 * 2**20
"""Bytes of a picture; larger ones are left out, since the page contains its pictures."""


def find_card(source: str | Path) -> Path | None:
    """Return the README.md of a run folder, of the run of a model, or of a model folder, if any.

    A link that leads out of the folder is not followed; this is logged.
    """
    folder = Path(source).expanduser()
    places = [folder]
    if folder.name == "model" and (folder.parent / "metrics.json").is_file():
        places.append(folder.parent)
    cards = (place / "README.md" for place in places)
    return next((card for card in cards if card.is_file() and _stays_inside(card)), None)


def card_html(path: Path) -> str:
    """Return the HTML of a card without its metadata.

    HTML in the Markdown is escaped, and links have only schemes that markdown-it considers safe.
    Only PNG and JPEG files beside the card are shown, as data URIs. Links to files outside the
    card's folder are not followed.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    text = re.sub(r"\A\s*---\n.*?\n---\n", "", text, flags=re.DOTALL)
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for token in [*tokens, *(child for block in tokens for child in block.children or ())]:
        if token.type in ("th_open", "td_open"):
            # the Content-Security-Policy of the page allows no inline styles
            if token.attrs.pop("style", None) == "text-align:right":
                token.attrs["class"] = "n"
        elif token.type == "image":
            token.attrs["src"] = _picture(path.parent, str(token.attrs.get("src", "")))
        elif token.type == "link_open":
            token.attrs |= {"rel": "noreferrer noopener", "target": "_blank"}
    return str(markdown.renderer.render(tokens, markdown.options, {}))


def _picture(folder: Path, name: str) -> str:
    """Return a picture beside the card as a data URI, or an empty string for anything else."""
    path = folder / name
    kind = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}.get(path.suffix.lower())
    is_beside = Path(name).name == name and path.is_file() and _stays_inside(path)
    if kind is None or not is_beside or path.stat().st_size > LARGEST_PICTURE:
        return ""
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _stays_inside(path: Path) -> bool:
    """Return whether a file is not a link out of its folder; such a link is logged."""
    target = target_outside(path, path.parent)
    if target is not None:
        logger.warning("%s is a link to %s, outside its folder, and is not shown.", path, target)
    return target is None

"""A model card to HTML that can stand in a page: its markup escaped, its pictures inside, nothing fetched, nothing run."""

import base64
import re
from pathlib import Path

from markdown_it import MarkdownIt

LARGEST_PICTURE = 5 * 2**20
"""Bytes; larger ones are left out, as they travel inside the page."""


def find_card(source: str | Path) -> Path | None:
    """README.md of a run folder, of the folder above a run's model, or of a model folder; None where there is none, as for a Hub id."""
    folder = Path(source).expanduser()
    places = [folder, folder.parent] if folder.name == "model" and (folder.parent / "metrics.json").is_file() else [folder]
    return next((place / "README.md" for place in places if (place / "README.md").is_file()), None)


def card_html(path: Path) -> str:
    """HTML of a card without its metadata block.

    HTML in the Markdown is escaped, links have the schemes that markdown-it holds for safe, and of pictures only PNG and JPEG files that
    lie beside the card are shown, as data URIs.
    """
    text = re.sub(r"\A\s*---\n.*?\n---\n", "", path.read_text(encoding="utf-8", errors="replace"), flags=re.DOTALL)
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for token in [*tokens, *(child for block in tokens for child in block.children or ())]:
        if token.type in ("th_open", "td_open") and token.attrs.pop("style", None) == "text-align:right":
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
    if kind is None or Path(name).name != name or not path.is_file() or path.stat().st_size > LARGEST_PICTURE:
        return ""
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"

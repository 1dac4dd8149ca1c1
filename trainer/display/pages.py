"""Render pages: templates that escape their values, formats of numbers, and pictures."""

import base64
import io
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup
    from matplotlib.figure import Figure

MOST_OF_A_LABEL = 60
"""Longest class name in a table or legend."""


def template(path: Path) -> "Template":
    """Return the Jinja template of a file.

    It escapes its values, may include files of this folder, and fails if a value is missing.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([path.parent, Path(__file__).parent])
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": "{:,}".format,
        "percent": "{:.1%}".format,
        "short": short_number,
        "decimals": decimals,
        "code": _code,
        "label": _label,
    }
    return environment.get_template(path.name)


def short_number(value: float) -> str:
    """Return a number with three digits, or without decimals from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def decimals(value: Any, places: int = 3) -> str:
    """Return a number with fixed decimals, or a dash for None."""
    return "\N{EN DASH}" if value is None else f"{value:.{places}f}"


def duration(seconds: float) -> str:
    """Return a time in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _code(text: str) -> "Markup":
    """Return escaped text whose `quoted` parts are code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _label(name: str) -> "Markup | str":
    """Return a class name; a long one is cut, and whole in its tooltip."""
    from markupsafe import Markup

    if len(name) <= MOST_OF_A_LABEL:
        return name
    return Markup('<span title="{}">{}…</span>').format(name, name[: MOST_OF_A_LABEL - 1])


def picture(figure: "Figure") -> str:
    """Return a figure as a data URI of SVG, for an <img> element, in which no script can run.

    Text is left to the fonts of the reader, which cover more scripts than matplotlib's.
    """
    from matplotlib import rc_context

    out = io.BytesIO()
    with (
        warnings.catch_warnings(),
        rc_context({"svg.fonttype": "none", "svg.hashsalt": "equipoise"}),
    ):
        warnings.filterwarnings("ignore", message="Glyph")  # lacking in matplotlib's font
        figure.savefig(out, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(out.getvalue()).decode()}"

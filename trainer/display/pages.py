"""What our pages share: templates that escape all they are given, numbers in words, pictures inside the page."""

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
"""Characters of a class's name in a table or a legend."""


def template(path: Path) -> "Template":
    """Return the Jinja template of a file; it escapes its values and may include files of this folder.

    A name in the template that is not given a value is an error.
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
    """Whole from 100 on, else three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def decimals(value: Any, places: int = 3) -> str:
    """A figure with fixed decimals; a dash where there is none."""
    return "\N{EN DASH}" if value is None else f"{value:.{places}f}"


def _code(text: str) -> "Markup":
    """Text whose `quoted` parts become code, escaped."""
    from markupsafe import Markup, escape

    parts = re.split(r"`([^`]*)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if position % 2 else escape(part)
        for position, part in enumerate(parts)
    )


def _label(name: str) -> "Markup | str":
    """The name of a class, cut where it would make a table of high rows, whole where the pointer rests on it."""
    from markupsafe import Markup

    return (
        name
        if len(name) <= MOST_OF_A_LABEL
        else Markup('<span title="{}">{}…</span>').format(name, name[: MOST_OF_A_LABEL - 1])
    )


def picture(figure: "Figure") -> str:
    """A figure as a data URI of SVG; as an image no script in it could run. Its text is left to the reader's fonts, which know more scripts."""
    from matplotlib import pyplot as plt

    out = io.BytesIO()
    with (
        warnings.catch_warnings(),
        plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "equipoise"}),
    ):
        warnings.filterwarnings(
            "ignore", message="Glyph"
        )  # a font of ours that lacks it measures the text, the reader's draws it
        figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    return f"data:image/svg+xml;base64,{base64.b64encode(out.getvalue()).decode()}"

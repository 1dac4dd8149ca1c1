"""What an audit found, as one HTML page that needs nothing else: no script, no request, pictures inside; and as audit.json."""

import json
from pathlib import Path
from typing import Any

from trainer.audit.audit_findings import FORMAT
from trainer.display.pages import picture, template
from trainer.display.shown_classes import MOST_IN_PAGE, largest_and_rarest
from trainer.errors import RunError
from trainer.run_folder.writer import RunFolder, check_writable

JSON_NAME, PAGE_NAME = "audit.json", "audit.html"
MOST_CANDIDATES_SHOWN = 100


def check_output(folder: Path) -> None:
    """Raises RunError when the folder cannot be written, or holds an audit.json or audit.html that no audit wrote; writes nothing."""
    check_writable(folder, "Set --output")
    if not any((folder / name).exists() for name in (JSON_NAME, PAGE_NAME)):
        return
    try:
        is_ours = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise RunError(
            f"{folder}: holds an {JSON_NAME} or {PAGE_NAME} that is not from this command. Give another --output."
        )


def write(folder: Path, findings: dict[str, Any]) -> Path:
    """Write audit.json and audit.html, in place of an older audit; returns the page."""
    page = render(findings)
    folder.mkdir(parents=True, exist_ok=True)
    RunFolder(folder).write_json(JSON_NAME, findings)
    RunFolder(folder).write_text(PAGE_NAME, page)
    return folder / PAGE_NAME


def render(findings: dict[str, Any]) -> str:
    """The page as text; labels and quoted texts are escaped."""
    from trainer.display import plots

    counts, measured_on = findings["classes"]["counts"], findings["classes"]["measured_on"]
    figures = {"classes": picture(plots.class_counts(counts[measured_on], measured_on))}
    tokens = findings["lengths"]["tokens"]
    lengths = tokens["by_class"] if tokens else findings["lengths"]["characters"]
    figures["lengths"] = picture(plots.class_lengths(lengths, "tokens" if tokens else "characters"))
    shown = largest_and_rarest(
        sorted(counts[measured_on], key=lambda label: -counts[measured_on][label]), MOST_IN_PAGE
    )
    return template(Path(__file__).with_name("audit_template.html")).render(
        findings, figures=figures, shown=shown, most_shown=MOST_CANDIDATES_SHOWN
    )

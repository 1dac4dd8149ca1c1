"""The findings of an audit as one self-contained HTML page, and as audit.json."""

import json
from dataclasses import asdict
from pathlib import Path

from trainer.audit.findings import FORMAT, Findings
from trainer.display.pages import picture, template
from trainer.display.shown_classes import MOST_IN_PAGE, largest_and_rarest
from trainer.errors import RunError
from trainer.run_folder.writer import RunFolder, check_writable

JSON_NAME, PAGE_NAME = "audit.json", "audit.html"
MOST_CANDIDATES_SHOWN = 100
MOST_PAIRS_SHOWN = 15


def check_output(folder: Path) -> None:
    """Raise RunError if the folder cannot be written, or has files that no audit wrote.

    Nothing is written.
    """
    check_writable(folder, "Set --output")
    if not any((folder / name).exists() for name in (JSON_NAME, PAGE_NAME)):
        return
    try:
        is_ours = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise RunError(
            f"{folder}: contains an {JSON_NAME} or {PAGE_NAME} that is not from this command."
            " Give another --output."
        )


def write(folder: Path, findings: Findings) -> Path:
    """Write audit.json and audit.html, replacing those of an older audit; return the page."""
    page = render(findings)
    folder.mkdir(parents=True, exist_ok=True)
    RunFolder(folder).write_json(JSON_NAME, asdict(findings))
    RunFolder(folder).write_text(PAGE_NAME, page)
    return folder / PAGE_NAME


def render(findings: Findings) -> str:
    """Return the page as text; labels and quoted texts are escaped."""
    from trainer.display import plots

    measured_on = findings.classes["measured_on"]
    counts, tokens = findings.classes["counts"][measured_on], findings.lengths["tokens"]
    lengths = tokens["by_class"] if tokens else findings.lengths["characters"]
    figures = {
        "classes": picture(plots.class_counts(counts, measured_on)),
        "lengths": picture(plots.class_lengths(lengths, "tokens" if tokens else "characters")),
    }
    sets = findings.label_sets
    if sets and sets["matrix"]["labels"]:
        figures["pairs"] = picture(plots.co_occurrence(**sets["matrix"]))
    by_size = sorted(counts, key=lambda label: -counts[label])
    return template(Path(__file__).with_name("page_template.html")).render(
        vars(findings),
        figures=figures,
        shown=largest_and_rarest(by_size, MOST_IN_PAGE),
        most_shown=MOST_CANDIDATES_SHOWN,
        most_pairs=MOST_PAIRS_SHOWN,
    )

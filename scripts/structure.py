"""Print the structure of the package: modules per folder, longest files and functions, statements.

    python scripts/structure.py [--limits]

With --limits the exit code is 1 if a file, a function or a line is longer than the limits below.
"""

import argparse
import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
LINE, FUNCTION, FILE, FOLDER = 100, 60, 350, 12
"""Most characters of a line, lines of a function and of a file, and modules of a folder."""
SHOWN = 10
PRAGMA = re.compile(r"\s*#\s*(noqa|type:).*$")
"""Comments for ruff and mypy, which ruff does not count either."""


class Function(NamedTuple):
    """A function and where it stands."""

    num_lines: int
    place: str


def modules(folder: Path = ROOT / "trainer") -> dict[str, ast.Module]:
    """Return the syntax tree of each module of the package, by its path in the repository."""
    paths = sorted(folder.rglob("*.py"))
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text("utf-8")) for path in paths}


def functions(trees: dict[str, ast.Module]) -> list[Function]:
    """Return all functions, the longest first."""
    return sorted(
        (
            Function(node.end_lineno - node.lineno + 1, f"{path}:{node.lineno} {node.name}")
            for path, tree in trees.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
        ),
        reverse=True,
    )


def long_lines() -> list[str]:
    """Return the places of lines above the limit, in code and in the pages' templates."""
    folders = ("trainer", "tests", "scripts")
    paths = [
        p for name in folders for end in ("py", "html") for p in (ROOT / name).rglob(f"*.{end}")
    ]
    return [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted(paths)
        for number, line in enumerate(path.read_text("utf-8").split("\n"), 1)
        if len(PRAGMA.sub("", line)) > LINE
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--limits", action="store_true", help="exit code 1 above the limits")
    is_limited = parser.parse_args().limits
    trees, console = modules(), Console()
    folders: dict[str, int] = {}
    for path in trees:
        folders[str(Path(path).parent)] = folders.get(str(Path(path).parent), 0) + 1
    files = sorted(
        ((len((ROOT / p).read_text("utf-8").split("\n")), p) for p in trees), reverse=True
    )
    found, lines = functions(trees), long_lines()
    for title, rows in (
        ("modules of a folder", [(count - 1, name) for name, count in sorted(folders.items())]),
        ("longest files, in lines", files[:SHOWN]),
        ("longest functions, in lines", found[:SHOWN]),
    ):
        table = Table(title=title, show_header=False, title_justify="left")
        for number, name in rows:
            table.add_row(f"{number:,}", name)
        console.print(table)
    statements = sum(
        isinstance(node, ast.stmt) for tree in trees.values() for node in ast.walk(tree)
    )
    console.print(f"lines of more than {LINE} characters: {len(lines)} {', '.join(lines[:SHOWN])}")
    console.print(f"functions of more than 40 lines: {sum(each.num_lines > 40 for each in found)}")
    console.print(f"statements: {statements:,} in {len(trees)} modules")
    is_above = files[0][0] > FILE or found[0].num_lines > FUNCTION or max(folders.values()) > FOLDER
    sys.exit(is_limited and (is_above or bool(lines)))


if __name__ == "__main__":
    main()

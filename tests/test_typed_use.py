"""Type checkers see the public API as a program outside this repository uses it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import trainer

USE = Path(__file__).with_name("typed_use.py")
CONFIG = """
[mypy]
strict = true
[mypy-trainer.*]
follow_imports = silent
[mypy-{packages}]
follow_imports = skip
ignore_missing_imports = true
"""
LIBRARIES = ("transformers", "datasets", "accelerate", "scipy", "sklearn", "pandas", "evaluate")


def test_typed_program_uses_every_public_name():
    text = USE.read_text(encoding="utf-8")
    assert [name for name in trainer.__all__ if name not in text] == []


@pytest.mark.exhaustive
def test_program_that_uses_every_public_name_passes_mypy_strict(tmp_path):
    packages = ",mypy-".join(f"{name}.*" for name in LIBRARIES)
    (tmp_path / "mypy.ini").write_text(CONFIG.format(packages=packages), encoding="utf-8")
    (tmp_path / "program.py").write_text(USE.read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--warn-unused-ignores", "program.py"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(USE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Success" in done.stdout, done.stdout + done.stderr

"""What a run shows on a terminal and in files: stage lines, the table of epochs and one bar."""

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import termios
import threading

import pytest
from conftest import ROOT
from small_runs import train

from trainer import progress

STAGES = (
    r"Read 240 rows from 1 file",
    r"Cleaned: 240 rows kept",
    r"Split: 144 train, 48 validation, 48 test rows",
    r"Balanced \(undersample\): an epoch draws 72 of 144 training rows",
    r"Loaded torch and transformers",
    r"Tokenised 168 texts to at most 16 tokens each",
    r"Loaded the model \S+",
    r"Evaluated 48 validation and 48 test rows",
    r"Wrote pictures and model card",
)
TIME = r" +\d+\.\d s$"
HEADINGS = "Training Loss  Epoch  Step  Validation Loss  Accuracy  Macro F1  Minority Recall"
ROW = r"^ +\d\.\d{4} +1 +2 +(\d\.\d{4} *){4}$"


@pytest.fixture
def shown(monkeypatch, tmp_path, small_config):
    """Function (on_terminal) -> everything that a run of two steps writes there."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("trainer.training.progress.FIGURES_SECONDS", 0.0)
    config = small_config(tmp_path / "config", balance={"method": "undersample"})

    def run(*, on_terminal):
        if not on_terminal:
            file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
            with redirected(file):
                train(config)
                file.flush()
            return file.buffer.getvalue().decode()
        with terminal() as (file, parts), redirected(file):
            train(config)
        return b"".join(parts).decode()

    return run


@contextlib.contextmanager
def redirected(file):
    with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield


@contextlib.contextmanager
def terminal():
    """A pseudo-terminal: its end for programs, and the parts that were written to it."""
    controller, device = pty.openpty()
    termios.tcsetwinsize(device, (40, 100))
    parts = []

    def read():
        with contextlib.suppress(OSError):
            while part := os.read(controller, 65536):
                parts.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(device, "w", encoding="utf-8") as file:
        yield file, parts
    reader.join()
    os.close(controller)


def test_file_gets_one_line_a_stage_and_an_evaluation_and_no_bar(shown):
    lines = shown(on_terminal=False).splitlines()
    found = [next(i for i, line in enumerate(lines) if re.match(s + TIME, line)) for s in STAGES]
    assert found == sorted(found)
    assert lines.count(HEADINGS) == 1
    assert len([line for line in lines if re.match(ROW, line)]) == 1
    assert not [line for line in lines if "\r" in line or "|" in line or "\x1b" in line]


def test_terminal_gets_one_bar_with_figures_below_whole_lines(shown):
    text = shown(on_terminal=True)
    lines = [line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n")]
    assert [s for s in STAGES if not any(re.search(s + TIME, line) for line in lines)] == []
    assert HEADINGS in lines
    (row,) = [place for place, line in enumerate(lines) if re.match(ROW, line)]
    (bar,) = [place for place, line in enumerate(lines) if line.startswith("Training |")]
    assert row < bar
    figures = r"Training \|█+\| 2/2, 00:00 left, loss \d\.\d{3}, [\d,]+ rows/s, macro F1 \d\.\d{3}"
    assert re.fullmatch(figures, lines[bar].strip()) or "macro F1" not in lines[bar]
    assert "\x1b[?25l" not in text, "the cursor was hidden"


@pytest.mark.parametrize(
    ("variables", "is_shown"),
    [({}, True), ({"CI": "true"}, False), ({"CI": "false"}, True), ({"RANK": "1"}, False)],
    ids=lambda value: str(value),
)
def test_bars_appear_on_terminals_of_the_main_process_outside_ci(monkeypatch, variables, is_shown):
    monkeypatch.delenv("CI", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with terminal() as (file, parts), progress.progress_bar(total=2, file=file) as bar:
        bar.update(1)
    assert bool(b"".join(parts)) == is_shown


def test_only_the_main_process_prints_lines(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    progress.print_line("a")
    monkeypatch.setenv("RANK", "0")
    progress.print_line("b")
    assert capsys.readouterr().out == "b\n"


INTERRUPTED = """
import warnings
from trainer.launch.exits import worded_errors
from trainer.progress import progress_bar
with worded_errors():
    bar = progress_bar(total=9, desc="Training", leave=True)
    bar.update(1)
    warnings.warn("a class is rare")
    bar.refresh()
    raise KeyboardInterrupt
"""


def test_warning_and_interruption_begin_lines_of_their_own():
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    with terminal() as (file, parts):
        code = subprocess.run(
            [sys.executable, "-c", INTERRUPTED],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=file,
            check=False,
        ).returncode
    text = b"".join(parts).decode().replace("\r\n", "\n")
    assert code == 130
    assert "\r\x1b[Kwarning: a class is rare\n" in text
    assert re.search(r"Training: +11%.*\nstopped by the keyboard; run the same command", text)
    assert text.endswith("\n")

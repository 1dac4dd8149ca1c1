"""Caches are written once whoever wants them, and a run folder has one training; a killed holder blocks nobody."""

import errno
import os
import re
import signal
import subprocess
import sys
import time

import filelock
import pytest
from conftest import ROOT

from trainer import load_config, locks, pipeline
from trainer.delivery import report
from trainer.errors import RunError
from trainer.locks import locked, write_once

READ = """
import json, os, sys, time
from pathlib import Path
from trainer import load_config, locks
from trainer.data import sources
locks.PATIENCE_SECONDS = 0.2
made = []
hash_texts = sources.hash_texts
def slow(rows):
    made.append(rows.num_rows)
    Path(sys.argv[2], f"half-way-{os.getpid()}").touch()
    time.sleep(float(sys.argv[3]))
    return hash_texts(rows)
sources.hash_texts = slow
rows = sources.read_rows(load_config(sys.argv[1]).data, Path(sys.argv[2]))
print(json.dumps([sum(made), rows.table.num_rows]))
"""
HOLD = "import sys, time\nfrom pathlib import Path\nfrom trainer.delivery.report import only_run\nwith only_run(Path(sys.argv[1])):\n    time.sleep(60)"


def start(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(found, process):
    while not found():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_two_processes_at_once_read_the_rows_once(config_file, tmp_path):
    config, cache = config_file(), tmp_path / "cache"
    readers = [start(READ, config, cache, 1), start(READ, config, cache, 1)]
    told = [reader.communicate(timeout=60) for reader in readers]
    assert sorted(out for out, _ in told) == ["[0, 240]\n", "[240, 240]\n"], told
    waiter = next(err for out, err in told if out.startswith("[0"))
    assert re.search(r"rows-\w+\.lock: waiting, being written by pid \d+ on \S+", waiter)


def test_killed_reader_blocks_nobody_and_what_it_left_is_never_read(config_file, tmp_path):
    config, cache = config_file(), tmp_path / "cache"
    holder = start(READ, config, cache, 60)
    wait_for(lambda: list(cache.glob("half-way-*")), holder)
    waiter = start(READ, config, cache, 0)
    said = next((line for line in waiter.stderr if "waiting" in line), "it did not wait")
    assert f"being written by pid {holder.pid} on " in said
    assert len(list(cache.glob("*.partial"))) == 1
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    out, err = waiter.communicate(timeout=30)
    assert out == "[240, 240]\n", err
    assert list(cache.glob("*.partial")) == []


def test_file_of_the_cache_that_is_there_is_left_alone_and_needs_no_lock(tmp_path):
    (tmp_path / "rows.json").write_text("whole", encoding="utf-8")
    write_once(tmp_path / "rows.json", lambda: pytest.fail("it was written again"))
    assert not (tmp_path / "rows.lock").exists()


def test_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch):
    def refuse(self, *_, **__):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.warns(UserWarning, match="this file system knows no locks; go on without, so start no second run on the same files"):
        write_once(tmp_path / "rows.json", lambda: (tmp_path / "rows.json").touch())
    assert (tmp_path / "rows.json").exists()


def test_folder_that_cannot_be_written_is_no_file_system_without_locks(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), locked(tmp_path / "file/rows.lock", "being written"):
        pass


def test_second_training_of_a_run_folder_is_refused_until_the_first_is_gone(config_file, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.2)
    folder = tmp_path / "runs/run"
    holder = start(HOLD, folder)
    wait_for(lambda: (folder / report.LOCK).exists() and (folder / report.LOCK).read_text(), holder)
    refused = rf"runs/run: a run is being trained here by pid {holder.pid} on \S+\. Wait for it or end it, or set another run.name\."
    with pytest.raises(RunError, match=refused):
        pipeline.train(load_config(config_file()))
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with report.only_run(folder):
        assert (folder / report.LOCK).read_text().startswith(f"pid {os.getpid()} on ")
    assert not folder.exists()  # nothing was started there

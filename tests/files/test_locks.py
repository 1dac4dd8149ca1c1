"""A cache is written once, and a run folder has one training; a killed process blocks nobody."""

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

from trainer import load_config
from trainer.errors import RunError
from trainer.files import locks
from trainer.files.locks import locked, write_once
from trainer.run_folder import writer
from trainer.runs import training_run

pytestmark = pytest.mark.slow

READ = """
import contextlib, json, os, sys, time
from pathlib import Path
from trainer import load_config
from trainer.data.reading import sources
from trainer.files import locks
locks.PATIENCE_SECONDS = 0.2
made = []
hash_texts = sources.hash_texts
def slow(rows):
    made.append(rows.num_rows)
    Path(sys.argv[2], f"half-way-{os.getpid()}").touch()
    time.sleep(float(sys.argv[3]))
    return hash_texts(rows)
sources.hash_texts = slow
with contextlib.redirect_stdout(sys.stderr):  # what is said of the file
    rows = sources.read_rows(load_config(sys.argv[1]).data, Path(sys.argv[2]))
print(json.dumps([sum(made), rows.table.num_rows]))
"""
HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom trainer.run_folder.writer import only_run\n"
    "with only_run(Path(sys.argv[1])):\n    time.sleep(60)"
)


def start(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


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
    with pytest.warns(
        UserWarning,
        match="this file system does not support locks. The run continues without them",
    ):
        write_once(tmp_path / "rows.json", lambda: (tmp_path / "rows.json").touch())
    assert (tmp_path / "rows.json").exists()


def test_folder_that_cannot_be_written_is_no_file_system_without_locks(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), locked(tmp_path / "file/rows.lock", "being written"):
        pass


def test_second_training_of_a_run_folder_is_refused_until_the_first_is_gone(
    config_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.2)
    folder = tmp_path / "runs/run"
    holder = start(HOLD, folder)
    wait_for(lambda: (folder / writer.LOCK).exists() and (folder / writer.LOCK).read_text(), holder)
    refused = (
        rf"runs/run: a run is being trained here by pid {holder.pid} on \S+\. Wait for it or end"
        r" it, or set another run.name\."
    )
    with pytest.raises(RunError, match=refused):
        training_run.train(load_config(config_file()))
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with writer.only_run(folder):
        assert (folder / writer.LOCK).read_text().startswith(f"pid {os.getpid()} on ")
    assert not folder.exists()  # nothing was started there


WITHOUT_LOCKS = """
import errno, filelock
def refuse(self, *_, **__):
    raise OSError(errno.ENOSYS, "Function not implemented")
filelock.FileLock.acquire = refuse
"""


def test_two_processes_on_a_file_system_without_locks_both_end_with_the_right_rows(
    config_file, tmp_path
):
    config, cache = config_file(), tmp_path / "cache"
    first = start(WITHOUT_LOCKS + READ, config, cache, 3)
    wait_for(lambda: list(cache.glob("half-way-*")), first)
    second = start(WITHOUT_LOCKS + READ, config, cache, 0)
    for process in (second, first):
        out, err = process.communicate(timeout=60)
        assert out == "[240, 240]\n", err
    assert start(READ, config, cache, 0).communicate(timeout=60)[0] == "[0, 240]\n"
    assert sorted(path.suffix for path in cache.glob("rows-*") if path.suffix != ".lock") == [
        ".arrow",
        ".json",
    ]


def test_partial_files_of_the_dead_are_removed_and_those_of_the_living_stay(tmp_path):
    entry = tmp_path / "rows-1.json"
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    own = locks.partial_path(entry)
    dead = entry.with_name(own.name.replace(f"-{os.getpid()}-", f"-{gone.pid}-"))
    here, there = own.name.split(".")[1].split("-")[0], "0123456789ab"
    other = entry.with_name(dead.name.replace(here, there))
    unsigned, old, folder = (
        tmp_path / "rows-1.77.partial",
        tmp_path / "rows-1.78.partial",
        tmp_path / "rows-1.0123456789ab-1-01234567.partial",
    )
    foreign = tmp_path / "rows-2.79.partial"
    for path in (own, dead, other, unsigned, old, foreign):
        path.touch()
    folder.mkdir()
    (folder / "parts").touch()
    yesterday = time.time() - 25 * 3600
    for path in (old, folder, foreign):
        os.utime(path, (yesterday, yesterday))
    write_once(entry, entry.touch)
    assert {path for path in tmp_path.iterdir() if path.suffix == ".partial"} == {
        own,
        other,
        unsigned,
        folder,
        foreign,
    }
    os.utime(folder / "parts", (yesterday, yesterday))
    locks.remove_dead(tmp_path, "rows-1.*partial*")
    assert not folder.exists()


def test_names_of_partial_files_differ_within_one_process(tmp_path):
    assert len({locks.partial_path(tmp_path / "rows-1.arrow") for _ in range(100)}) == 100


def test_use_of_an_entry_is_its_access_time_and_leaves_the_time_of_writing(tmp_path):
    entry = tmp_path / "rows-1.json"
    entry.touch()
    os.utime(entry, (1e9, 1e9))
    write_once(entry, lambda: pytest.fail("it was written again"))
    assert entry.stat().st_mtime == 1e9
    assert entry.stat().st_atime > time.time() - 60


def test_entry_that_cannot_be_read_back_is_an_error_not_a_loop(tmp_path):
    with pytest.raises(RunError, match=r"rows-1\.json: was written, but cannot be read back"):
        write_once(tmp_path / "rows-1.json", lambda: None, lambda: None)

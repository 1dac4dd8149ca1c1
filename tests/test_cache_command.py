"""`equipoise cache`: show and delete the entries of the caches, and nothing else."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from trainer.files import cache
from trainer.files.locks import partial_path

pytestmark = pytest.mark.slow

DIGEST = "0123456789abcdef0123456789abcdef"
READ = """
import sys, time
from pathlib import Path
from trainer.config.sections.data import DataSection
from trainer.data.reading.sources import read_rows
from trainer.files.cache import cache_dir
rows = read_rows(DataSection(source=sys.argv[1]), cache_dir())
print(rows.table.num_rows, flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def home(tmp_path):
    """HF_HOME of the commands."""
    return tmp_path / "hf"


@pytest.fixture
def cached(home, run_cli):
    """Function (*options) -> (exit code, standard output, standard error)."""

    def run(*options):
        done = run_cli("cache", *options, HF_HOME=str(home), COLUMNS="240")
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def rows(tmp_path, home):
    """Function (seconds) -> process that has read the rows of a file and keeps them mapped."""
    path = tmp_path / "tweets.csv"
    path.write_text("text,label\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(50)))

    def start(seconds):
        process = subprocess.Popen(
            [sys.executable, "-c", READ, str(path), str(seconds)],
            cwd=ROOT,
            env=os.environ | {"HF_HOME": str(home)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "50\n"
        return process

    return start


def entry(home, kind="rows", content=b"x" * 2048, days=0.0, ending=".arrow", digest=DIGEST):
    path = home / "equipoise" / f"{kind}-{digest}{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    used = time.time() - days * 24 * 3600
    os.utime(path, (used, used))
    return path


def test_no_cache_is_told_and_is_no_fault(cached, home):
    assert cached() == (0, f"{home}/equipoise: does not exist; nothing is cached.\n", "")
    assert cached("--clear")[0] == 0
    assert not home.exists()


def test_table_has_number_size_and_age_of_each_kind(cached, home):
    entry(home, days=40)
    entry(home, digest=DIGEST[::-1], days=3)
    entry(home, kind="tokens", ending=".npz", content=b"x" * 1000)
    entry(home, kind="tokens", ending=".input_ids.bin", content=b"x" * 24)
    code, out, err = cached()
    assert (code, err) == (0, "")
    lines = [re.split(r"\s*[│┃]\s*", line.strip("│┃ ")) for line in out.splitlines()]
    assert ["rows", "2", "4.0 KiB", "40 days ago to 3 days ago", "rows of a data source"] in lines
    assert ["tokens", "1", "1.0 KiB", "just now", "token ids"] in lines
    assert f"{home}/equipoise, 5.0 KiB" in out


def test_list_names_what_each_entry_was_made_from_and_is_no_use_of_it(cached, rows, home, tmp_path):
    rows(0).wait()
    for path in (home / "equipoise").iterdir():
        os.utime(path, (1e9, 1e9))
    for _ in range(2):
        code, out, _ = cached("--list")
        assert code == 0
        (line,) = [line for line in out.splitlines() if "rows-" in line]
        assert "tweets.csv" in "".join(out.split("│"))
        assert re.search(r"\d,\d{3} days ago", line)


def test_clear_deletes_everything_and_says_what_was_freed(cached, rows, home):
    rows(0).wait()
    entry(home, kind="embeddings-mean-bf16", ending="").unlink()
    folder = home / f"equipoise/embeddings-mean-bf16-{DIGEST}"
    folder.mkdir()
    (folder / "a.npy").write_bytes(b"x" * 1024)
    size = sum(path.stat().st_size for path in (home / "equipoise").rglob("*") if path.is_file())
    assert cached("--clear") == (
        0,
        f"{home}/equipoise: deleted 2 entries, {size / 1024:.1f} KiB freed.\n",
        "",
    )
    assert list((home / "equipoise").iterdir()) == []


def test_list_and_clear_together_are_refused_and_delete_nothing(cached, rows, home):
    rows(0).wait()
    before = sorted((home / "equipoise").iterdir())
    code, _, err = cached("--list", "--clear")
    assert (code, err) == (
        2,
        "--list and --clear are both given. Give --list to see what --clear would delete, then"
        " --clear.\n",
    )
    assert sorted((home / "equipoise").iterdir()) == before


def test_older_than_limits_what_is_cleared_and_shown(cached, home):
    old, new = entry(home, days=31), entry(home, digest=DIGEST[::-1], days=29)
    assert old.stem in cached("--list", "--older-than", "30d")[1]
    assert new.stem not in cached("--list", "--older-than", "30d")[1]
    assert "deleted 1 entry, 2.0 KiB freed" in cached("--clear", "--older-than", "30d")[1]
    assert (old.exists(), new.exists()) == (False, True)
    assert "deleted 0 entries" in cached("--clear", "--older-than", "700h")[1]
    assert "deleted 1 entry" in cached("--clear", "--older-than", "4w")[1]


def test_rows_that_a_run_found_again_are_not_old(cached, rows, home):
    rows(0).wait()
    for path in (home / "equipoise").iterdir():
        os.utime(path, (1e9, 1e9))
    rows(0).wait()
    assert "deleted 0 entries" in cached("--clear", "--older-than", "1h")[1]


@pytest.mark.parametrize("age", ["30", "d", "30 days", "-3d", "3m", "", "1e9d"])
def test_age_that_cannot_be_read_is_refused(cached, home, age):
    kept = entry(home, days=99)
    needed = "needed: a number and h (hours), d (days) or w (weeks), such as 12h, 30d or 2w."
    assert cached("--clear", f"--older-than={age}") == (
        2,
        "",
        f"--older-than is '{age}'; {needed}\n",
    )
    assert kept.exists()


@pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="who maps a file is known on Linux alone"
)
def test_rows_that_a_running_process_has_mapped_are_skipped(cached, rows, home):
    holder = rows(60)
    try:
        old = entry(home, kind="tokens", ending=".npz")
        code, out, _ = cached("--clear")
        assert code == 0
        assert re.search(
            r"deleted 1 entry, 2\.0 KiB freed\.\nSkipped 1 entry \(\S+ KiB\) that running"
            r" processes use: rows-\w{32}\n",
            out,
        )
        assert not old.exists()
        assert len(list((home / "equipoise").glob("rows-*"))) == 3
    finally:
        holder.kill()
        holder.wait()
    assert "deleted 1 entry" in cached("--clear")[1]


def test_entry_that_is_being_written_is_skipped(cached, home):
    from filelock import FileLock

    locked, kept = entry(home), entry(home, kind="stream")
    partial = partial_path(kept)
    partial.touch()
    with FileLock(locked.with_suffix(".lock"), fallback_to_soft=False):
        assert "Skipped 2 entries" in cached("--clear")[1]
    assert locked.exists()
    assert (kept.exists(), partial.exists()) == (True, True)
    partial.unlink()
    assert "deleted 2 entries" in cached("--clear")[1]


def test_files_of_others_and_links_are_left_alone(cached, home, tmp_path):
    entry(home)
    folder, outside = home / "equipoise", tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    (outside / "rows.arrow").write_text("mine")
    (folder / f"rows-{DIGEST[::-1]}.arrow").symlink_to(outside / "rows.arrow")
    (folder / f"embeddings-{DIGEST}").symlink_to(outside)
    inner = folder / f"embeddings-{DIGEST[::-1]}"
    inner.mkdir()
    (inner / "a.npy").symlink_to(outside / "mine")
    (inner / "b").symlink_to(outside)
    others = ["notes.txt", "rows.arrow", f"rows-{DIGEST[:-1]}.arrow", f"my-rows-{DIGEST}.arrow"]
    for name in others:
        (folder / name).write_text("mine")
    assert "deleted 2 entries" in cached("--clear")[1]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*others, f"rows-{DIGEST[::-1]}.arrow", f"embeddings-{DIGEST}"]
    )
    assert sorted(path.name for path in outside.iterdir()) == ["mine", "rows.arrow"]


def test_every_cache_is_named_as_the_command_expects(config_file, run_cli, home, tmp_path, cached):
    path = config_file(model={"mode": "head"}, training={"per_device_train_batch_size": ...})
    done = run_cli("train", "--config", path, HF_HOME=str(home))
    assert done.returncode == 0, done.stderr
    names = [found.name for found in (home / "equipoise").iterdir()]
    assert [name for name in names if not cache.NAME.fullmatch(name)] == []
    assert {name.partition("-")[0] for name in names} == {"rows", "tokens", "embeddings"}
    made_from = {found.kind: found.made_from for found in cache.entries(home / "equipoise")}
    assert made_from["rows"].endswith("tweets.csv")
    assert "max_length 64" in made_from["tokens"]
    assert "tiny_model" in made_from["embeddings"]
    assert cached("--clear")[0] == 0
    assert list((home / "equipoise").iterdir()) == []

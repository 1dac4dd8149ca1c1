"""A disk that is full names the file that could not be written, and leaves no lock file behind."""

import resource
from contextlib import contextmanager

import pytest

from trainer.delivery.predicting.partial_file import PartialFile
from trainer.errors import RunError
from trainer.files import durable, locks
from trainer.run_folder.writer import RunFolder


@contextmanager
def at_most(num_bytes):
    """No file may grow above a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_page_that_does_not_fit_is_named(tmp_path):
    with at_most(10), pytest.raises(OSError, match="File too large") as caught:
        RunFolder(tmp_path).write_text("report.html", "x" * 1000)
    assert caught.value.filename == str(tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_lock_that_cannot_be_signed_holds_and_goes(tmp_path):
    target = tmp_path / "out.csv"
    with at_most(0), locks.only_writer(target):
        assert locks.work_file(target, "lock").exists()
        with pytest.raises(
            RunError, match=r"out\.csv is being written by an unknown process\. Wait for it"
        ):
            locks.refuse_while_written(target)
    assert list(tmp_path.iterdir()) == []
    locks.refuse_while_written(target)


def test_output_that_is_written_is_refused_at_once_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = locks.Path("out.csv")
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 1000)  # which is not waited for
    with locks.only_writer(target), pytest.raises(RunError) as caught:
        locks.refuse_while_written(target)
    assert str(caught.value).startswith(f"{tmp_path}: out.csv is being written by pid ")


def test_output_that_cannot_get_its_name_on_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "sync", full)
    partial = PartialFile(tmp_path / "out.csv", {})
    with pytest.raises(
        RunError,
        match=(
            r"\.out\.csv\.equipoise-partial: .*No space left on device\. The first 0 rows"
            r" are kept"
        ),
    ):
        partial.finish()

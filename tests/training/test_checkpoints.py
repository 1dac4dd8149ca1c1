from pathlib import Path

import pytest
import torch

from trainer.errors import RunError
from trainer.training.checkpoints import is_whole, mark_whole, newest_whole, saving


@pytest.fixture
def folder(tmp_path):
    for step in (9, 10, 100):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "model.safetensors").write_bytes(b"x" * step)
        (checkpoint / "optimizer.pt").write_bytes(b"y")
    return tmp_path


def test_newest_whole_checkpoint_goes_by_steps_not_by_name(folder):
    for step in (9, 10, 100):
        mark_whole(folder / f"checkpoint-{step}")
    assert newest_whole(folder).name == "checkpoint-100"


def test_unmarked_truncated_and_incomplete_checkpoints_are_not_whole(folder):
    mark_whole(folder / "checkpoint-9")
    mark_whole(folder / "checkpoint-10")
    (folder / "checkpoint-10/model.safetensors").write_bytes(b"x" * 9)
    assert not is_whole(folder / "checkpoint-100")
    assert not is_whole(folder / "checkpoint-10")
    assert newest_whole(folder).name == "checkpoint-9"
    (folder / "checkpoint-9/optimizer.pt").unlink()
    assert newest_whole(folder) is None


def test_broken_manifest_is_not_whole(folder):
    (folder / "checkpoint-9/whole.json").write_text("{")
    assert not is_whole(folder / "checkpoint-9")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full, a file on a full disk")
def test_full_disk_is_told_with_the_last_good_checkpoint(folder):
    mark_whole(folder / "checkpoint-9")
    words = r"could not be saved .* MiB are free there\. Free space; the last good checkpoint is .*checkpoint-9"
    with pytest.raises(RunError, match=words), saving(Path("/dev/full"), folder):
        torch.save(torch.zeros(10_000), "/dev/full")
    with pytest.raises(RunError, match=r"could not be saved .*No space left on device"), saving(Path("/dev/full"), folder):
        Path("/dev/full").write_text("x")

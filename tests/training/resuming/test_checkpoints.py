import json
from pathlib import Path

import pytest
import torch

from trainer.errors import RunError
from trainer.training.resuming.checkpoints import (
    drop_old,
    fault_of,
    mark_whole,
    newest_whole,
    partial_path,
    publish,
    saving,
    set_aside,
    tidy,
)


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
    assert fault_of(folder / "checkpoint-100") == "whole.json is missing"
    assert fault_of(folder / "checkpoint-10") == "model.safetensors has 9 of 10 bytes"
    assert newest_whole(folder).name == "checkpoint-9"
    (folder / "checkpoint-9/optimizer.pt").unlink()
    assert fault_of(folder / "checkpoint-9") == "optimizer.pt is missing"
    assert newest_whole(folder) is None


def test_broken_manifest_is_not_whole(folder):
    (folder / "checkpoint-9/whole.json").write_text("{")
    assert (
        fault_of(folder / "checkpoint-9")
        == "whole.json or progress.json cannot be read (JSONDecodeError)"
    )


def test_one_changed_byte_is_found(folder):
    mark_whole(folder / "checkpoint-10")
    (folder / "checkpoint-10/model.safetensors").write_bytes(b"x" * 9 + b"z")
    assert fault_of(folder / "checkpoint-10") == "model.safetensors was changed after it was saved"


def test_checkpoint_whose_best_is_broken_is_not_resumed(folder):
    for step in (9, 10, 100):
        (folder / f"checkpoint-{step}/progress.json").write_text(
            json.dumps({"best_step": 10 if step == 100 else None})
        )
        mark_whole(folder / f"checkpoint-{step}")
    assert newest_whole(folder).name == "checkpoint-100"
    (folder / "checkpoint-10/optimizer.pt").unlink()
    assert (
        fault_of(folder / "checkpoint-100")
        == "checkpoint-10, the best so far, is not whole: optimizer.pt is missing"
    )
    assert newest_whole(folder).name == "checkpoint-9"


def test_what_cannot_be_resumed_is_set_aside_with_a_warning(folder):
    mark_whole(folder / "checkpoint-9")
    warnings = set_aside(folder, newest_whole(folder))
    assert [
        (
            f"{folder}/checkpoint-{n} cannot be resumed: whole.json is missing. It is "
            f"renamed to corrupt-checkpoint-{n}."
        )
        for n in (100, 10)
    ] == warnings
    assert sorted(p.name for p in folder.iterdir()) == [
        "checkpoint-9",
        "corrupt-checkpoint-10",
        "corrupt-checkpoint-100",
    ]
    assert set_aside(folder, newest_whole(folder)) == []


def test_saved_again_a_step_takes_the_place_of_its_first_checkpoint(folder):
    mark_whole(folder / "checkpoint-9")
    partial = partial_path(folder, 9)
    partial.mkdir()
    (partial / "new").write_text("")
    mark_whole(partial)
    publish(folder, 9)
    assert sorted(p.name for p in (folder / "checkpoint-9").iterdir()) == ["new", "whole.json"]
    assert not list(folder.glob("*.partial")) + list(folder.glob("replaced-*"))


def test_killed_between_the_renames_a_checkpoint_gets_its_name_back(folder):
    mark_whole(folder / "checkpoint-100")
    (folder / "checkpoint-100").rename(folder / "replaced-checkpoint-100")
    partial_path(folder, 100).mkdir()
    tidy(folder)
    assert newest_whole(folder).name == "checkpoint-100"
    assert not partial_path(folder, 100).exists()


@pytest.mark.parametrize(
    ("best_by_step", "limit", "kept"),
    [
        ({1: 1, 2: 1, 3: 1}, 2, [1, 3]),  # the newest and the best
        ({1: 1, 2: 1, 3: 3}, 2, [1, 3]),  # 2 could not be resumed without 1
        ({1: 1, 2: 2, 3: 3}, 2, [2, 3]),
        ({1: 1, 2: 1, 3: 3}, 3, [1, 2, 3]),
        ({1: None, 2: None, 3: None}, 2, [2, 3]),
        ({1: 1, 2: 2, 3: 3}, None, [1, 2, 3]),
    ],
)
def test_old_checkpoints_go_but_never_the_newest_or_the_best_or_the_one_to_fall_back_on(
    best_by_step, limit, kept, tmp_path
):
    for step, best in best_by_step.items():
        path = tmp_path / f"checkpoint-{step}"
        path.mkdir()
        (path / "progress.json").write_text(json.dumps({"best_step": best}))
        mark_whole(path)
    drop_old(tmp_path, limit)
    assert sorted(int(p.name.removeprefix("checkpoint-")) for p in tmp_path.iterdir()) == kept
    (tmp_path / f"checkpoint-{kept[-1]}" / "progress.json").write_text("")
    assert newest_whole(tmp_path) == tmp_path / f"checkpoint-{kept[-2]}"


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="needs Linux's /dev/full, a file on a full disk"
)
def test_full_disk_is_told_with_the_last_good_checkpoint(folder):
    mark_whole(folder / "checkpoint-9")
    words = (
        r"could not be saved .* MiB are free there\. Free space; the last good checkpoint is "
        r".*checkpoint-9"
    )
    with pytest.raises(RunError, match=words), saving(Path("/dev/full"), folder):
        torch.save(torch.zeros(10_000), "/dev/full")
    with (
        pytest.raises(RunError, match=r"could not be saved .*No space left on device"),
        saving(Path("/dev/full"), folder),
    ):
        Path("/dev/full").write_text("x")

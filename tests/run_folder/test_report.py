import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from trainer.errors import RunError
from trainer.run_folder.writer import RunFolder, check_writable, is_finished, plan_run, start_run
from trainer.training.resuming.checkpoints import mark_whole

CONFIG = {
    "run": {"name": "r", "overwrite": False, "output_dir": "runs"},
    "training": {"learning_rate": 1e-5},
}
OTHER = {
    "run": {"name": "r", "overwrite": False, "output_dir": "elsewhere"},
    "training": {"learning_rate": 2e-5},
}


def open_run(path, config, fingerprint, *, overwrite, resume):
    """Plan a run and, unless it resumes, start it."""
    checkpoint = plan_run(path, config, fingerprint, overwrite=overwrite, resume=resume)
    if checkpoint is None:
        start_run(path, config)
    return checkpoint


@pytest.fixture
def run(tmp_path):
    """Function (finished) -> folder of a run of CONFIG on the rows 'abc' with one checkpoint."""

    def make(finished):
        path = tmp_path / "r"
        assert open_run(path, CONFIG, "abc", overwrite=False, resume="auto") is None
        folder = RunFolder(path)
        folder.write_json("environment.json", {"data": {"fingerprint": "abc"}})
        checkpoint = path / "checkpoints/checkpoint-3"
        checkpoint.mkdir()
        (checkpoint / "model.safetensors").write_bytes(b"x")
        mark_whole(checkpoint)
        if finished:
            folder.finish({"validation": {}})
        return path

    return make


def test_unfinished_run_of_the_same_config_and_data_resumes_also_with_overwrite(run):
    path = run(finished=False)
    assert open_run(path, CONFIG, "abc", overwrite=False, resume="auto").endswith("checkpoint-3")
    assert open_run(path, CONFIG, "abc", overwrite=True, resume="auto").endswith("checkpoint-3")


def test_output_dir_and_overwrite_are_no_part_of_the_comparison(run):
    path = run(finished=False)
    moved = {**CONFIG, "run": {"name": "r", "overwrite": True, "output_dir": "/elsewhere"}}
    assert open_run(path, moved, "abc", overwrite=False, resume="auto").endswith("checkpoint-3")


def test_what_page_and_card_tell_is_no_part_of_the_comparison(run):
    path = run(finished=False)
    for unlike in ({"show_texts": False}, {"comparison": "runs/topics-compare"}):
        assert open_run(
            path, {**CONFIG, "report": unlike}, "abc", overwrite=False, resume="auto"
        ).endswith("checkpoint-3")


def test_unfinished_run_of_another_config_or_data_is_refused_naming_the_difference(run):
    path = run(finished=False)
    with pytest.raises(
        RunError,
        match=r"unfinished run that differs: training.learning_rate is 1e-05 there, 2e-05 here",
    ):
        open_run(path, OTHER, "abc", overwrite=False, resume="auto")
    with pytest.raises(RunError, match="the rows of the data differ"):
        open_run(path, CONFIG, "xyz", overwrite=False, resume="auto")
    assert open_run(path, OTHER, "abc", overwrite=True, resume="auto") is None
    assert not (path / "checkpoints/checkpoint-3").exists()


def test_resume_never_discards_an_unfinished_run(run):
    path = run(finished=False)
    assert open_run(path, CONFIG, "abc", overwrite=False, resume="never") is None
    assert not (path / "checkpoints/checkpoint-3").exists()


def test_finished_run_is_refused_without_overwrite_and_replaced_with_it(run):
    path = run(finished=True)
    with pytest.raises(
        RunError,
        match=r"holds a finished run, of the same config and data\. Set run\.overwrite: true",
    ):
        open_run(path, CONFIG, "abc", overwrite=False, resume="auto")
    with pytest.raises(RunError, match=r"and it differs: training\.learning_rate"):
        open_run(path, OTHER, "abc", overwrite=False, resume="never")
    assert open_run(path, OTHER, "xyz", overwrite=True, resume="auto") is None
    assert not (path / "metrics.json").exists()


@pytest.mark.parametrize("removed", range(7))
def test_killed_while_the_run_before_is_removed_the_folder_still_starts(removed, run, monkeypatch):
    path = run(finished=False)
    for name in ("model", "adapter"):
        (path / name).mkdir()
    gone = []

    def count(remove):
        def counted(target, *args, **kwargs):
            if Path(target).exists():
                if len(gone) == removed:
                    raise KeyboardInterrupt
                gone.append(target)
            return remove(target, *args, **kwargs)

        return counted

    monkeypatch.setattr("shutil.rmtree", count(shutil.rmtree))
    monkeypatch.setattr("pathlib.Path.unlink", count(Path.unlink))
    with suppress(KeyboardInterrupt):
        open_run(path, OTHER, "abc", overwrite=True, resume="auto")
    assert len(gone) == min(removed, 4)  # checkpoint-3, model, adapter, environment.json
    monkeypatch.undo()
    assert open_run(path, OTHER, "abc", overwrite=True, resume="auto") is None
    assert sorted(p.name for p in path.iterdir()) == ["checkpoints", "config.yaml"]


def test_passes_that_fit_the_memory_are_kept_by_a_start_of_the_same_config_alone(run):
    path = run(finished=False)
    (path / "checkpoints/tokens_per_pass.json").write_text("512")
    open_run(path, CONFIG, "abc", overwrite=False, resume="never")
    assert (path / "checkpoints/tokens_per_pass.json").read_text() == "512"
    open_run(path, OTHER, "abc", overwrite=False, resume="never")
    assert not (path / "checkpoints/tokens_per_pass.json").exists()


def test_checkpoints_that_a_kill_left_in_a_finished_run_are_removed(run):
    path = run(finished=True)
    (path / "checkpoints/checkpoint-3").mkdir(parents=True)
    assert not is_finished(path, OTHER, "abc")
    assert (path / "checkpoints").exists()
    assert is_finished(path, CONFIG, "abc")
    assert not (path / "checkpoints").exists()


def test_run_killed_at_its_very_start_is_started_again(tmp_path):
    open_run(tmp_path / "r", CONFIG, "abc", overwrite=False, resume="auto")
    assert open_run(tmp_path / "r", CONFIG, "abc", overwrite=False, resume="auto") is None
    (tmp_path / "r2").mkdir()
    (tmp_path / "r2/.config.yaml.partial").write_text("run:")
    assert open_run(tmp_path / "r2", CONFIG, "abc", overwrite=False, resume="auto") is None


def test_folder_of_other_files_is_refused_and_overwriting_leaves_them(run, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.png").write_bytes(b"x")
    with pytest.raises(RunError, match="holds files but no run"):
        open_run(tmp_path / "photos", CONFIG, "abc", overwrite=True, resume="never")
    path = run(finished=True)
    (path / "notes.txt").write_text("mine")
    open_run(path, CONFIG, "abc", overwrite=True, resume="auto")
    assert (path / "notes.txt").read_text() == "mine"


def test_numbers_that_are_not_finite_never_reach_a_json_file(run):
    folder = RunFolder(run(finished=True))
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_json("metrics.json", {"loss": float("nan")})
    assert json.loads((folder.path / "metrics.json").read_text()) == {"validation": {}}


def test_unwritable_folder_is_told_without_creating_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        check_writable(tmp_path / "file/runs/r")
    check_writable(tmp_path / "new/runs/r")
    assert not (tmp_path / "new").exists()


def test_splits_of_more_rows_than_are_written_at_once_read_back_whole(tmp_path):
    named = {
        "train": np.arange(1_000_002) * 3,
        "validation": np.array([1, 4]),
        "test": np.zeros(0, np.int64),
    }
    RunFolder(tmp_path).write_splits(named)
    assert json.loads((tmp_path / "splits.json").read_text(encoding="utf-8")) == {
        name: ids.tolist() for name, ids in named.items()
    }

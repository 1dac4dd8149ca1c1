"""What a finished run lacks: what the same command and `report` make again, say, or refuse."""

import json
import os
import re
import shutil
import signal

import forked_runs
import pytest
from small_runs import train

from trainer.delivery.report import report_page
from trainer.errors import RunError
from trainer.run_folder.finished_run import FinishedRun

pytestmark = pytest.mark.slow


def without_clock(path):
    metrics = json.loads(path.read_text(encoding="utf-8"))
    return {name: value for name, value in metrics.items() if name != "training"}


@pytest.mark.parametrize(
    "place", [pytest.param("predictions", marks=pytest.mark.exhaustive), "finish"]
)
def test_run_killed_around_its_figures_has_predictions_and_mistakes_after_the_same_command(
    place, small_config, whole_run, tmp_path
):
    config, log, run = small_config(tmp_path), tmp_path / "log", tmp_path / "runs/run"
    strike = (place, 1, [signal.SIGKILL])
    assert forked_runs.train(config, log, strike=strike) == [-signal.SIGKILL], log.read_text()
    assert (run / "metrics.json").exists() == (place == "finish")
    assert (run / "predictions.parquet").is_file()
    log.unlink()
    strike = ("step", 1, [signal.SIGKILL])  # no step is taken again
    assert forked_runs.train(config, log, strike=strike) == [0], log.read_text()
    names = {path.name for path in run.iterdir()}
    assert names == {path.name for path in whole_run[1].iterdir()}
    assert without_clock(run / "metrics.json") == without_clock(whole_run[1] / "metrics.json")
    for name in ("predictions.parquet", "mistakes.jsonl"):
        assert (run / name).read_bytes() == (whole_run[1] / name).read_bytes()


def damage(run, how):
    """Damage a run folder; gives the file."""
    name, _, action = how.partition(" ")
    path = run / name
    if action == "gone":
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif action == "empty":
        path.write_bytes(b"")
    elif action == "cut":
        os.truncate(path, path.stat().st_size - 20)
    else:
        path.write_text("{not JSON", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "how",
    [
        "confusion_matrix.png empty",
        "learning_curves.png cut",
        "README.md empty",
        "report.html empty",
        "report.html cut",
        "epochs.csv gone",
        "epochs.csv empty",
    ],
)
def test_file_that_is_gone_or_cut_off_is_made_again_as_it_was(how, copied_run, whole_run, capsys):
    config, run = copied_run
    path = damage(run, how)
    train(config)
    assert f"these missing files were written: {path.name}." in capsys.readouterr().out
    wanted = (whole_run[1] / path.name).read_bytes()
    assert path.read_bytes() == wanted or path.name == "report.html"  # which names its folder
    assert path.stat().st_size == pytest.approx(len(wanted), rel=0.01)


@pytest.mark.parametrize(
    "how", ["model gone", "model/model.safetensors empty", "model/config.json gone"]
)
def test_lost_model_is_refused_and_trained_anew_only_when_asked(how, copied_run, capsys):
    config, run = copied_run
    path = damage(run, how)
    with pytest.raises(RunError) as caught:
        train(config)
    said = str(caught.value)
    assert said == (
        f"{run}: holds a finished run (metrics.json), but {path} is missing or empty."
        " Restore it from a copy, or set run.overwrite: true to train again."
    )
    (run / "report.html").unlink()
    train(config, **{"run.overwrite": "true"})
    assert f"{said} It is trained again, since run.overwrite is true." in capsys.readouterr().out
    assert (run / "model/model.safetensors").stat().st_size


@pytest.mark.parametrize("name", ["metrics.json", "report.json"])
def test_damaged_file_of_a_finished_run_is_refused_by_its_name(name, copied_run):
    config, run = copied_run
    damage(run, f"{name} damaged")
    remedy = "Restore it from a copy, or set run.overwrite: true to train again."
    with pytest.raises(RunError, match=re.escape(f"{run / name}: is damaged: ")) as caught:
        train(config)
    assert str(caught.value).endswith(remedy)


def test_what_only_training_can_write_is_named_in_place_of_nothing_to_do(
    copied_run, capsys, caplog
):
    config, run = copied_run
    names = ["report.json", "README.md", "class_distribution.png", "splits.json", "dropped.jsonl"]
    for name in names:
        damage(run, f"{name} gone")
    train(config)
    said = capsys.readouterr().out
    assert "nothing to do" not in said
    lacks = "README.md, class_distribution.png, dropped.jsonl, report.json, splits.json"
    remedy = "Set run.overwrite: true to train again, or another run.name."
    assert (
        f"{run}: holds the finished run of this config and data, but lacks {lacks}. {remedy}"
        in said
    )
    for name in names:
        assert any(
            message.startswith(f"{run / name} is missing and ") for message in caplog.messages
        )


def test_deleted_figures_beside_a_model_are_trained_anew_and_that_is_said(copied_run):
    config, run = copied_run
    (run / "metrics.json").unlink()
    words = (
        "holds a model, but neither metrics.json nor a checkpoint. The run is unfinished and is"
        " trained again."
    )
    with pytest.warns(UserWarning, match=re.escape(f"{run}: {words}")):
        train(config)
    assert (run / "metrics.json").is_file()


def test_report_keeps_a_page_that_tells_more_and_replaces_it_only_when_asked(copied_run):
    _, run = copied_run
    page = run / "report.html"
    before = page.read_bytes()
    for name in ("predictions.parquet", "mistakes.jsonl"):
        damage(run, f"{name} gone")
    lost = "precision-recall curves, calibration, mistakes, texts of mistakes"
    with pytest.raises(RunError) as caught:
        report_page.rebuild(FinishedRun.read(run))
    assert str(caught.value) == (
        f"{page}: is kept, since a new page would lack its {lost}: the run folder lacks"
        " predictions.parquet,"
        f" mistakes.jsonl. Restore these files from a copy, or give --output {page} to overwrite"
        " the page."
    )
    assert page.read_bytes() == before
    report_page.rebuild(FinishedRun.read(run), page)
    words = " ".join(page.read_text(encoding="utf-8").split())
    assert "No intervals: this run folder holds no predictions.parquet." in words


def test_page_names_the_file_that_it_lacks(copied_run):
    _, run = copied_run
    damage(run, "mistakes.jsonl gone")
    shown = " ".join(report_page.render(FinishedRun.read(run)).split())
    assert "this run folder holds no mistakes.jsonl" in shown
    for name in ("report.json", "epochs.csv"):
        damage(run, f"{name} gone")
    shown = " ".join(report_page.render(FinishedRun.read(run)).split())
    assert "this run folder holds no report.json, which has the counts by class" in shown
    assert "This run folder holds no epochs.csv, so there are no learning curves." in shown


def test_page_has_no_column_without_values_and_no_balanced_imbalance(copied_run):
    _, run = copied_run  # whose model says one class, so that no resampling changes a figure
    facts = json.loads((run / "report.json").read_text(encoding="utf-8"))
    changed = facts | {"imbalance_ratio": 1.0, "severity": "balanced"}
    (run / "report.json").write_text(json.dumps(changed), encoding="utf-8")
    shown = " ".join(report_page.render(FinishedRun.read(run)).split())
    assert "95 % interval</th>" not in shown
    assert "No intervals: classes are too small, or their rows are all right or all wrong" in shown
    assert "After cleaning and before balancing, all classes have the same number of rows." in shown
    assert "balanced imbalance" not in shown

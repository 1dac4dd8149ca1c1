"""What a finished run lacks: what the same command and `report` make again, say, or refuse."""

import json
import signal

import forked_runs
import pytest


def without_clock(path):
    metrics = json.loads(path.read_text(encoding="utf-8"))
    return {name: value for name, value in metrics.items() if name != "training"}


@pytest.mark.parametrize("place", ["predictions", "finish"])
def test_run_killed_around_its_figures_has_predictions_and_mistakes_after_the_same_command(place, small_config, whole_run, tmp_path):
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

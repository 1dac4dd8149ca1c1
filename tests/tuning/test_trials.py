"""What Optuna and trackers learn of a trial, and when a trial is pruned."""

from types import SimpleNamespace

import pytest

optuna = pytest.importorskip("optuna")
from trainer import load_config  # noqa: E402
from trainer.comparison.trainings import tracked_run  # noqa: E402
from trainer.tuning.search import Search  # noqa: E402
from trainer.tuning.trials import Reports  # noqa: E402  # needs optuna


@pytest.fixture
def study():
    """A study with five complete trials, which have macro F1 0.5 to 0.9 at epoch 1."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for number in range(5):
        trial = study.ask()
        trial.report(0.5 + 0.1 * number, 10)
        study.tell(trial, 1.0)
    return study


def evaluated(reports, macro_f1, *, step=10, epoch=1.0):
    state = SimpleNamespace(epoch=epoch, global_step=step, max_steps=30)
    reports.on_evaluate(None, state, None, metrics={"eval_macro_f1": macro_f1})


def test_trial_below_the_median_at_its_epoch_is_pruned(study):
    reports = Reports(study.ask(), prunes=True)
    with pytest.raises(optuna.TrialPruned):
        evaluated(reports, 0.69)


@pytest.mark.parametrize(
    ("macro_f1", "prunes", "place"),
    [
        (0.71, True, {}),
        (0.1, False, {}),
        (0.1, True, {"step": 30}),
        (0.1, True, {"epoch": 2.0}),
    ],
    ids=["above the median", "the config", "the last step", "an epoch nobody reached"],
)
def test_other_trials_continue(study, macro_f1, prunes, place):
    trial = study.ask()
    evaluated(Reports(trial, prunes=prunes), macro_f1, **place)
    tenths = round(10 * place.get("epoch", 1.0))
    assert study.trials[trial.number].intermediate_values == {tenths: macro_f1}


def test_resumed_trial_reports_each_epoch_once(study, recwarn):
    trial = study.ask()
    evaluated(Reports(trial, prunes=False), 0.8)
    evaluated(Reports(trial, prunes=False), 0.8)
    assert not recwarn


def test_trackers_of_all_trials_write_into_the_folder_of_the_search(tmp_path):
    values = {"model": {"name": "bert"}, "data": {"source": "a.csv"}, "run": {"name": "mine"}}
    search = Search(load_config(values), tmp_path / "mine-tune", multi_label=False)
    training = search.training_of(SimpleNamespace(number=0))
    run = tracked_run(training)
    assert (run.group, run.logs) == ("mine-tune", tmp_path / "mine-tune/logs")


def test_no_trial_starts_after_the_minutes_of_the_budget(tmp_path):
    tune = {"trials": 9, "minutes": 2}
    config = load_config({"model": {"name": "bert"}, "data": {"source": "a.csv"}, "tune": tune})
    search = Search(config, tmp_path, multi_label=False)
    for seconds, is_spent in ((119.0, False), (2.0, True)):
        with search.claimed() as trial:
            trial.set_user_attr("seconds", seconds)
            search.study.tell(trial.number, 0.5)
        assert search.is_spent == is_spent
    with search.claimed() as trial:
        assert trial is None
    assert search.is_over


def test_running_trial_is_resumed_once_its_worker_is_gone(tmp_path):
    values = {"model": {"name": "bert"}, "data": {"source": "a.csv"}, "tune": {"trials": 2}}
    first, second = (Search(load_config(values), tmp_path, multi_label=False) for _ in range(2))
    with first.claimed() as own, second.claimed() as other:
        assert (own.number, other.number) == (0, 1)
        with first.claimed() as third:
            assert third is None
        asked = second.values_of(other)
    with first.claimed() as own, first.claimed() as other:
        assert (own.number, other.number) == (0, 1)
        assert first.values_of(other) == asked
    assert len(first.trials) == 2

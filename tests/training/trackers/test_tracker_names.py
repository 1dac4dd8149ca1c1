"""Which trackers exist, which are installed, and what they may be told."""

import json

import pytest
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from trainer import load_config
from trainer.cli.training import train_command
from trainer.config.sections.tracker_names import (
    TRACKERS,
    chosen_trackers,
    refuse_missing_trackers,
)
from trainer.errors import ConfigError
from trainer.training.trackers.tracked_run import (
    MOST_CLASSES,
    TrackedRun,
    class_names,
    result_figures,
)


def test_trackers_are_those_of_transformers():
    assert TRACKERS.keys() == INTEGRATION_TO_CALLBACK.keys()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("tensorbord", "training.report_to is 'tensorbord'; known: a list, all, "),
        (["mlflow", "wandbb"], "training.report_to.1 is 'wandbb'; known: azure_ml, "),
    ],
    ids=["name", "list"],
)
def test_unknown_tracker_is_refused_with_the_nearest_name(config_file, value, words):
    with pytest.raises(ConfigError) as error:
        load_config(str(config_file(training={"report_to": value})))
    assert words in str(error.value)
    nearest = "tensorboard" if isinstance(value, str) else "wandb"
    assert str(error.value).endswith(f"Did you mean '{nearest}'?")


@pytest.mark.parametrize("options", [{"check": True}, {}], ids=["check", "train"])
def test_missing_package_is_refused_before_data_and_model_are_read(
    config_file, options, capsys, tmp_path, monkeypatch
):
    (tmp_path / "neptune").mkdir()  # such a folder is no package
    monkeypatch.syspath_prepend(tmp_path)
    path = config_file(training={"report_to": ["neptune", "flyte"]}, data={"source": "none.csv"})
    with pytest.raises(SystemExit) as end:
        train_command(str(path), **options)
    assert end.value.code == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith(
            "training.report_to: flyte, neptune is not installed. Run: pip install neptune flytekit"
        )
    )


def test_tracker_without_its_variable_is_refused(monkeypatch):
    monkeypatch.delenv("KUBEFLOW_TRAINER_SERVER_URL", raising=False)
    with pytest.raises(ConfigError, match="kubeflow needs the environment variable KUBEFLOW_TR"):
        refuse_missing_trackers("kubeflow")
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "http://127.0.0.1")
    refuse_missing_trackers("kubeflow")


def test_all_means_the_installed_ones_and_nothing_means_none(monkeypatch):
    monkeypatch.setitem(TRACKERS, "dvclive", ("json", "dvclive"))
    installed = chosen_trackers("all")
    assert "dvclive" in installed
    assert "neptune" not in installed
    refuse_missing_trackers("all")
    assert chosen_trackers(None) == chosen_trackers("none") == chosen_trackers([]) == []
    assert chosen_trackers(["wandb", "mlflow", "wandb"]) == ["wandb", "mlflow"]


def test_parameters_hold_no_tokens_and_passwords(tmp_path):
    run = TrackedRun(
        "run",
        tmp_path,
        {
            "data.source": "https://me:secret@host/a.csv?api_key=secret&page=1",
            "model.name": "hf_abcdefghijklmnop",
            "run.seed": 42,
            "split": None,
        },
    )
    assert run.parameters == {
        "data.source": "https://***@host/a.csv?***&page=1",
        "model.name": "***",
        "run.seed": 42,
        "split": "None",
    }


def test_names_of_classes_stay_apart():
    assert class_names(["a b", "é"], r"[^\w.-]") == {"a b": "a_b", "é": "é"}
    assert class_names(["é", "è"], r"[^A-Za-z0-9_.-]") == {"é": "0__", "è": "1__"}


def test_results_of_the_decision_are_logged_and_with_many_classes_the_worst(caplog):
    labels = [f"class {number}" for number in range(MOST_CLASSES + 5)]
    per_class = {label: {"f1": number / 1000} for number, label in enumerate(labels)}
    alone = {"macro_f1": 0.1, "labels": labels, "per_class": per_class}
    decided = {"macro_f1": 0.2, "labels": labels[:1], "per_class": {labels[0]: {"f1": 0.5}}}
    figures = result_figures({"test": alone, "training": {"seconds": 1}}, r"[^\w.-]")
    assert figures["test_macro_f1"] == 0.1
    assert len(figures) == MOST_CLASSES + 1
    assert f"test_f1/class_{MOST_CLASSES}" not in figures
    assert f"the {MOST_CLASSES} classes with the lowest F1 of test" in caplog.text
    metrics = json.loads(json.dumps({"test": alone, "decision": {"validation": decided}}))
    assert result_figures(metrics, r"[^\w.-]") == {
        "eval_final/macro_f1": 0.2,
        "eval_final/f1/class_0": 0.5,
    }

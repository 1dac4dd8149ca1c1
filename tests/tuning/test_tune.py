"""Searches with a small real model: what they train, what they never see, and how they end."""

import json
import signal

import forked_runs
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import write_tweets_config
from sklearn.metrics import f1_score

from trainer import ConfigError, load_config
from trainer.data.prepare import read_splits
from trainer.errors import DataError, RunError, TrainingError
from trainer.files.cache import cache_dir
from trainer.tuning import tune, tune_page
from trainer.tuning.rows import prepare_search
from trainer.tuning.space import parameters

pytestmark = pytest.mark.slow

pytest.importorskip("optuna")
SPACE = {
    "training.learning_rate": [1e-3, 3e-2],
    "loss.class_weights": ["none", "balanced"],
    "model.max_length": {"choices": [16, 32]},
}
STEPS = 12
"""Steps of a trial, which saves a checkpoint every 6."""


@pytest.fixture(scope="module")
def make_config(narrow_model, tweets):
    """Function (folder, **tune) -> YAML of a search of four trials with two epochs each."""

    def make(folder, *, training=None, **section):
        training = {
            "num_train_epochs": 2,
            "per_device_train_batch_size": 32,
            "learning_rate": 1e-2,
            "bf16": False,
        } | (training or {})
        section = {"space": SPACE, "trials": 4, "prune": False} | section
        return write_tweets_config(folder, narrow_model, tweets, training=training, tune=section)

    return make


def result_of(folder):
    return json.loads((folder / "tuning.json").read_text(encoding="utf-8"))


def outcome(folder):
    """tuning.json without what times and paths say."""
    result = result_of(folder)
    for trial in result["trials"]:
        del trial["seconds"]
    left_out = ("seconds", "command", "train_command")
    return {key: value for key, value in result.items() if key not in left_out}


@pytest.fixture(scope="module")
def unbroken(make_config, tmp_path_factory):
    """Folder of the search that nothing interrupted."""
    folder = tmp_path_factory.mktemp("unbroken")
    log = folder / "log"
    assert forked_runs.tune(make_config(folder), log) == 0, log.read_text()
    return folder / "runs/run-tune"


def test_first_trial_is_the_config_and_the_others_keep_to_the_space(unbroken):
    first, *others = result_of(unbroken)["trials"]
    assert first["values"] == {
        "training.learning_rate": 1e-2,
        "loss.class_weights": "none",
        "model.max_length": 32,
    }
    assert [trial["number"] for trial in others] == [1, 2, 3]
    assert len({json.dumps(trial["values"]) for trial in others}) == 3
    for trial in others:
        assert 1e-3 <= trial["values"]["training.learning_rate"] <= 3e-2
        config = load_config(str(unbroken / f"trials/{trial['number']:04}/seed-42/config.yaml"))
        assert config.training_values["learning_rate"] == trial["values"]["training.learning_rate"]
        assert config.loss.class_weights == trial["values"]["loss.class_weights"]


def rows_of(path):
    table = pq.read_table(path).to_pydict()
    return set(table["split"]), set(table["row"])


def test_search_rows_held_out_rows_and_test_rows_are_apart(unbroken, make_config, tmp_path):
    config = load_config(str(make_config(tmp_path)))
    clean, splits = read_splits(
        config.data, config.split, config.balance, seed=config.run.seed, cache_dir=cache_dir()
    )
    assert len(splits.test)
    predicted = list(unbroken.glob("trials/*/*/held_out.parquet"))
    assert (unbroken / "trials/0000/seed-42/held_out.parquet") in predicted
    data = prepare_search(config)
    search = set(splits.validation[data.search].tolist())
    held_out = set(splits.validation[data.held_out].tolist())
    assert search | held_out == set(splits.validation.tolist())
    assert not search & held_out
    for path in predicted:
        assert rows_of(path) == ({"held_out"}, held_out)
    for shared in (data.shared, data.whole, data.of(config)[0]):
        assert len(shared.first.test_rows) == len(shared.first.rows.splits.test) == 0
        assert "test" not in shared.first.tokens
    classes = np.bincount(clean.label_ids_N[splits.validation[data.held_out]])
    assert (abs(2 * classes - np.bincount(clean.label_ids_N[splits.validation])) <= 1).all()


def test_best_is_estimated_on_the_held_out_rows_beside_the_config(unbroken):
    result = result_of(unbroken)
    values = [trial["value"] for trial in result["trials"]]
    assert result["best"] == int(np.argmax(values))
    names = list(result["held_out"]["strategies"])
    assert names == ["config as it is", "best trial"][: 2 if result["best"] else 1]
    assert result["held_out"]["num_rows"] == result["rows"]["held_out"]
    page = (unbroken / "tune.html").read_text(encoding="utf-8")
    assert result["conclusion"].split(":")[0] in page


def test_page_escapes_what_others_wrote_and_needs_no_other_file(unbroken):
    result = result_of(unbroken)
    result["trials"][1] |= {"state": "failed", "value": None, "reason": "<script>alert(1)</script>"}
    result["model"] = "<b>model</b>"
    result["best"] = 0
    page = tune_page.render(result)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<b>model" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_best_yaml_is_ready_to_train(unbroken):
    result = result_of(unbroken)
    text = (unbroken / "best.yaml").read_text(encoding="utf-8")
    config = load_config(str(unbroken / "best.yaml"))
    best = result["trials"][result["best"]]["values"]
    assert text.startswith(f"# {result['conclusion'][:40]}")
    assert f"#   equipoise train {unbroken}/best.yaml" in text
    assert config.run.name == "run-best"
    assert {each.key: each.own for each in parameters(config, multi_label=False)}.keys() >= {
        "training.learning_rate"
    }
    assert config.training_values["learning_rate"] == best["training.learning_rate"]
    assert (config.loss.class_weights, config.model.max_length) == (
        best["loss.class_weights"],
        best["model.max_length"],
    )


def test_same_seed_gives_the_same_trials_and_killed_workers_lose_none(
    make_config, tmp_path, unbroken
):
    """A worker is killed in its second trial; the next one resumes that trial."""
    config, folder, log = make_config(tmp_path), tmp_path / "runs/run-tune", tmp_path / "log"
    strike = ("step", STEPS + 9, [signal.SIGKILL])
    assert forked_runs.tune(config, log, strike=strike) == -signal.SIGKILL
    assert [path.name for path in folder.glob("trials/0001/seed-42/checkpoints/checkpoint-*")] == [
        "checkpoint-6"
    ]
    assert forked_runs.tune(config, log) == 0, log.read_text()
    assert outcome(folder) == outcome(unbroken)
    assert "4 trials, 1 of them finished" in log.read_text()


@pytest.mark.exhaustive
def test_stopped_search_exits_with_75_and_resumes_to_the_same_result(
    make_config, tmp_path, unbroken
):
    config, folder, log = make_config(tmp_path), tmp_path / "runs/run-tune", tmp_path / "log"
    strike = ("step", STEPS + 9, [signal.SIGTERM, signal.SIGTERM])
    assert forked_runs.tune(config, log, strike=strike) == 75, log.read_text()
    stopped = json.loads((folder / "stopped.json").read_text(encoding="utf-8"))
    assert stopped["reason"] == "stopped by SIGTERM after step 9"
    assert (folder / "trials/0001/seed-42/checkpoints/checkpoint-9").is_dir()
    assert forked_runs.tune(config, log) == 0, log.read_text()
    assert outcome(folder) == outcome(unbroken)


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", ["head", "lora"])
def test_heads_and_adapters_are_searched_by_their_default_space(make_config, tmp_path, mode):
    path = make_config(tmp_path, space=None, trials=3)
    values = json.loads(path.read_text(encoding="utf-8"))
    values["model"]["mode"] = mode
    path.write_text(json.dumps(values), encoding="utf-8")
    assert forked_runs.tune(path, tmp_path / "log") == 0, (tmp_path / "log").read_text()
    result = result_of(tmp_path / "runs/run-tune")
    assert (result["mode"], result["counts"]["complete"]) == (mode, 3)
    assert ("training.learning_rate" in result["space"]) == (mode == "lora")


@pytest.mark.exhaustive
def test_two_workers_train_each_trial_once_and_one_writes_the_result(make_config, tmp_path):
    config, folder, log = make_config(tmp_path), tmp_path / "runs/run-tune", tmp_path / "log"
    workers = [forked_runs.start_tune(config, tmp_path / f"log{n}") for n in range(2)]
    for worker in workers:
        worker.join(timeout=100)
        worker.kill()
    said = [(tmp_path / f"log{n}").read_text() for n in range(2)]
    assert [worker.exitcode for worker in workers] == [0, 0], said
    trained = [
        line.split(":")[0]
        for text in said
        for line in text.splitlines()
        if line.startswith("trial ")
    ]
    assert sorted(trained) == [f"trial {number}" for number in range(4)], said
    assert len(result_of(folder)["trials"]) == 4
    assert not log.exists()
    assert not list(folder.rglob("checkpoint-*"))


def test_failed_trial_is_noted_with_its_reason_and_a_larger_budget_continues(
    make_config, tmp_path, capsys
):
    space = {
        "training.learning_rate": {"choices": [1e-2, 1e30]},
        "loss.class_weights": ["none", "balanced"],
    }
    folder = tmp_path / "runs/run-tune"
    tune.tune(load_config(str(make_config(tmp_path, space=space, trials=3))))
    result = result_of(folder)
    failed = [trial for trial in result["trials"] if trial["state"] == "failed"]
    assert failed
    assert all(trial["values"]["training.learning_rate"] == 1e30 for trial in failed)
    assert all("loss is" in trial["reason"] for trial in failed), failed
    assert failed[0]["reason"][:40] in (folder / "tune.html").read_text(encoding="utf-8")
    tune.tune(load_config(str(make_config(tmp_path, space=space, trials=3))))
    assert "nothing to do. Raise tune.trials" in capsys.readouterr().out
    tune.tune(load_config(str(make_config(tmp_path, space=space, trials=9))))
    again = result_of(folder)
    assert again["trials"][:3] == result["trials"]
    assert again["counts"] == {"complete": 2, "pruned": 0, "failed": 2}


def test_config_that_cannot_be_trained_ends_the_search_at_once(make_config, tmp_path):
    training = {"learning_rate": 1e30}
    config = load_config(str(make_config(tmp_path, training=training)))
    words = "the config as it is cannot be trained: the training loss is nan"
    with pytest.raises(TrainingError, match=words):
        tune.tune(config)
    with pytest.raises(TrainingError, match="--resume never"):
        tune.tune(config)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"tune": {"space": {"loss.name": ["focl", "focal"]}}}, "loss.name: focl: .*'focal'"),
        ({"ensemble": {"size": 3}}, "ensemble.size is 3; tune trains single models"),
        (
            {"balance": {"method": "undersample", "scope": "all"}},
            "balance.scope is 'all'; trials are compared",
        ),
        ({"data": {"streaming": True}}, "data.streaming chooses rows by balance.method"),
        ({"tune": {"space": {"model.head.l2": [0.1, 1.0]}}}, "range, but the config, .* Set model"),
        ({"tune": {"metric": "micro_f1"}}, "tune.metric is 'micro_f1'; with one label a row known"),
    ],
)
def test_configs_that_cannot_be_searched_are_refused(config_file, sections, words):
    config = load_config(config_file(**sections))
    with pytest.raises(ConfigError, match=words):
        tune.refuse(config, multi_label=False)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"metric": "mcc"}, "tune.metric is 'mcc'; with multi-label data known: accuracy"),
        ({"space": {"loss.name": ["focal", "logit_adjusted"]}}, "with multi-label data known: "),
    ],
)
def test_what_rows_with_several_labels_cannot_be_tuned_by_is_refused(config_file, section, words):
    with pytest.raises(ConfigError, match=words):
        tune.refuse(load_config(config_file(tune=section)), multi_label=True)


def test_rows_with_several_labels_are_searched_by_a_metric_of_label_sets(
    tactics, tiny_model, tmp_path, capsys
):
    wanted = {"discovery", "execution", "persistence", "privilege-escalation"}
    rows = [
        {"text": row["text"], "labels": [label for label in row["labels"] if label in wanted]}
        for row in tactics[::40][:400]
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    values = {
        "run": {"name": "run", "output_dir": str(tmp_path / "runs"), "num_threads": 1},
        "model": {"name": str(tiny_model), "max_length": 32, "mode": "head"},
        "data": {"source": str(tmp_path / "rows.jsonl"), "label_column": "labels"},
        "split": {"train": 0.5, "validation": 0.3, "test": 0.2},
        "tune": {"trials": 4, "metric": "micro_f1"},
    }
    folder = tune.tune(load_config(values))
    result = result_of(folder)
    assert result["counts"] == {"complete": 4, "pruned": 0, "failed": 0}
    assert result["space"]["loss.name"]["choices"][2:] == ["asymmetric", "distribution_balanced"]
    assert result["space"]["decision.thresholds"]["choices"] == [None, "micro_f1", "common"]
    held_out = result["held_out"]
    labels, best = held_out["labels"], f"trials/{result['best']:04}/seed-42"
    table = pq.read_table(folder / best / "held_out.parquet").to_pydict()
    true, predicted = (
        [[label in given for label in labels] for given in table[name]]
        for name in ("label", "predicted")
    )
    of_best = list(held_out["strategies"].values())[-1]["figures"]["micro_f1"]
    assert of_best["mean"] == pytest.approx(f1_score(true, predicted, average="micro"))
    assert of_best["low"] < of_best["mean"] < of_best["high"]
    assert f"micro F1 {of_best['mean']:.3f} on the " in result["conclusion"]
    assert "micro F1" in capsys.readouterr().out
    assert result["conclusion"][:30] in (folder / "tune.html").read_text(encoding="utf-8")
    chosen = load_config(str(folder / "best.yaml"))
    chosen.check_problem_type(multi_label=True)
    assert chosen.loss.name == result["trials"][result["best"]]["values"]["loss.name"]


def test_too_few_validation_rows_are_refused(make_config, tmp_path, tweets):
    path = make_config(tmp_path)
    values = json.loads(path.read_text(encoding="utf-8"))
    lines = tweets.read_text(encoding="utf-8").splitlines()
    for name, part in (("train", lines[2:]), ("validation", lines[1:2])):
        (tmp_path / f"{name}.csv").write_text("\n".join([lines[0], *part]), encoding="utf-8")
        values["data"][name] = str(tmp_path / f"{name}.csv")
    del values["data"]["source"], values["split"]
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(DataError, match="tune: 1 validation row cannot be divided"):
        prepare_search(load_config(str(path)))


def test_folder_of_another_search_or_with_other_files_is_kept(unbroken, make_config, tmp_path):
    above = unbroken.parents[1]
    before = result_of(unbroken)
    for changed, words in (
        ({"space": {"training.weight_decay": [0.0, 0.1]}}, "differs: tune.space"),
        ({"metric": "accuracy"}, "differs: tune.metric"),
        ({"training": {"learning_rate": 2e-2}}, "differs: training.learning_rate is 0.01 there"),
    ):
        with pytest.raises(RunError, match=words):
            tune.tune(load_config(str(make_config(above, **changed))))
    assert result_of(unbroken) == before
    (tmp_path / "runs/run-tune").mkdir(parents=True)
    (tmp_path / "runs/run-tune/thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="holds files but no search"):
        tune.tune(load_config(str(make_config(tmp_path))))

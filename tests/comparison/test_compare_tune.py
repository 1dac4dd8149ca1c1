"""Settings of `compare.tune`: who tries what, which rows choose, and what is shown beside it."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import write_tweets_config

from trainer import load_config
from trainer.comparison import compare
from trainer.comparison.choice import best_setting, best_settings
from trainer.comparison.grid import TrainingGrid
from trainer.comparison.settings import settings_of, strategy_of, tune_words
from trainer.comparison.shared_data import prepare_shared
from trainer.comparison.strategies import refuse
from trainer.errors import ConfigError, DataError, RunError
from trainer.run_folder.workers_folder import alone
from trainer.runs import training_run

TUNE = {"learning_rate": [0.05, 1e30], "num_train_epochs": [2]}
SETTINGS = [
    "learning_rate 0.001, num_train_epochs 1",
    "learning_rate 0.05, num_train_epochs 2",
    "learning_rate 1e+30, num_train_epochs 2",
]


def result_of(folder):
    return json.loads((folder / "comparison.json").read_text(encoding="utf-8"))


def metrics_of(folder, group, seed):
    path = folder / f"trainings/{group}/seed-{seed}/metrics.json"
    return json.loads(path.read_text(encoding="utf-8"))


def group_of(strategy, words):
    """The folder of a strategy with a setting, given in words."""
    if words == SETTINGS[0]:
        return strategy
    return f"{strategy}@{words.replace(', ', ',').replace(' ', '=')}"


def trained_at(folder):
    """When each training of a comparison was finished."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("trainings/*/*/metrics.json")}


@pytest.fixture(scope="module")
def values(narrow_model, tweets, tmp_path_factory):
    """The values of a comparison of two strategies with two seeds."""
    folder = tmp_path_factory.mktemp("tuned")
    path = write_tweets_config(
        folder,
        narrow_model,
        tweets,
        model={"name": str(narrow_model), "max_length": 16},
        split={"train": 0.4, "validation": 0.4, "test": 0.2},
        training={
            "num_train_epochs": 1,
            "per_device_train_batch_size": 32,
            "learning_rate": 1e-3,
            "load_best_model_at_end": False,
            "bf16": False,
        },
        compare={"strategies": ["class_weights"], "seeds": 2, "selection": "nested"},
    )
    return json.loads(path.read_text(encoding="utf-8"))


def with_compare(values, **changes):
    return load_config(values | {"compare": values["compare"] | changes})


@pytest.fixture(scope="module")
def tuned(values):
    """(config, folder) of a comparison that was first made without tuning."""
    folder = compare.compare(with_compare(values))
    before = trained_at(folder)
    config = with_compare(values, tune=TUNE)
    assert compare.compare(config) == folder
    assert len(before) == 4
    assert before.items() <= trained_at(folder).items()
    return config, folder


def test_every_strategy_tries_the_same_settings_and_has_the_best_on_the_selection_rows(tuned):
    _, folder = tuned
    result = result_of(folder)
    tune, compared = result["tune"], result["validation"]["strategies"]
    assert [*tune["settings"]] == SETTINGS
    assert {*tune["strategies"]} == {*compared}
    chosen_by = set()
    for name, trials in tune["strategies"].items():
        kind = "with_thresholds" if name.endswith("thresholds") else "decided"
        strategy = name.removesuffix(" + thresholds")
        means = {}
        for words in SETTINGS[:2]:
            trainings = [metrics_of(folder, group_of(strategy, words), seed) for seed in (42, 43)]
            means[words] = np.mean([each["selection"][kind]["macro_f1"] for each in trainings])
            assert trials["scores"][words]["mean"] == pytest.approx(means[words])
            if kind == "decided":  # nothing but the last evaluation on the selection rows
                for each in trainings:
                    assert each["selection"][kind]["macro_f1"] == each["evaluations"][-1][1]
        [chosen] = trials["chosen"]
        chosen_by.add(chosen)
        assert means[chosen] == max(means.values())
        of_group = [metrics_of(folder, group_of(strategy, chosen), seed) for seed in (42, 43)]
        figures = [(each if kind == "decided" else each[kind])["validation"] for each in of_group]
        assert compared[name]["figures"]["macro_f1"]["of_seeds"] == pytest.approx(
            [each["macro_f1"] for each in figures]
        )
        own = [metrics_of(folder, strategy, seed) for seed in (42, 43)]
        own = [(each if kind == "decided" else each[kind])["validation"] for each in own]
        assert tune["common"]["strategies"][name]["figures"]["macro_f1"]["of_seeds"] == (
            pytest.approx([each["macro_f1"] for each in own])
        )
    assert chosen_by != {SETTINGS[0]}  # or the test would show nothing


def test_a_setting_that_fails_costs_neither_its_strategy_nor_the_baseline(tuned, capsys):
    config, folder = tuned
    result = result_of(folder)
    groups = {group_of(strategy, SETTINGS[2]) for strategy in ("none", "class_weights")}
    assert {*result["tune"]["failed"]} == groups
    assert not result["failed"]
    assert all("loss is nan" in reason for reason in result["tune"]["failed"].values())
    compare.compare(config)
    said = " ".join(capsys.readouterr().out.split())
    assert "3 settings of every strategy" in said
    assert f"failed: {min(groups)}: the " in said
    page = (folder / "comparison.html").read_text(encoding="utf-8")
    assert ">failed</td>" in page
    assert SETTINGS[1] in page


def test_no_compared_row_chooses_a_setting(tuned, tmp_path):
    config, folder = tuned
    copy = tmp_path / "trainings"
    shutil.copytree(folder / "trainings", copy)
    grid = TrainingGrid(
        prepare_shared(alone(config)), copy, ("none", "class_weights"), "full", False, ""
    )

    def chosen(name="none"):
        return [training.strategy for training in grid.chosen()[name]]

    def edit(group, change):
        for path in (copy / group).glob("*/metrics.json"):
            metrics = json.loads(path.read_text(encoding="utf-8"))
            change(metrics)
            path.write_text(json.dumps(metrics), encoding="utf-8")

    first = chosen()
    other = next(
        group
        for group, trainings in grid.trainings.items()
        if strategy_of(group) == "none"
        and group != first[0]
        and all(training.is_finished for training in trainings)
    )
    edit(other, lambda metrics: metrics["validation"].update(macro_f1=1.0))
    assert chosen() == first
    edit(other, lambda metrics: metrics["selection"]["decided"].update(macro_f1=1.0))
    assert chosen() == [other, other]


def test_the_winner_s_config_trains_the_weights_that_were_compared(tuned):
    _, folder = tuned
    result = result_of(folder)
    winner = result["winner"]
    strategy = winner.removesuffix(" + thresholds")
    [chosen] = result["tune"]["strategies"][winner]["chosen"]
    config = load_config(str(folder / "winner.yaml"))
    assert (
        config.training_values["learning_rate"]
        == result["tune"]["settings"][chosen]["learning_rate"]
    )
    head = (folder / "winner.yaml").read_text(encoding="utf-8").replace("\n# ", " ")
    assert result["tune"]["words"] in head
    run = training_run.train(config)
    own = pq.read_table(run / "predictions.parquet", filters=[("split", "=", "test")])
    compared = pq.read_table(
        folder / f"trainings/{group_of(strategy, chosen)}/seed-42/test.parquet"
    )
    columns = [name for name in compared.column_names if name.startswith("probability_")]
    assert len(columns) == 3
    own, compared = (table.sort_by("row").select(columns) for table in (own, compared))
    assert own.equals(compared)
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "This model follows the strategy" in card
    assert "tried 3 settings" in card


def test_order_of_the_grid_does_not_matter(tuned, values):
    _, folder = tuned
    before, result = trained_at(folder), result_of(folder)
    turned = {key: of[::-1] for key, of in reversed(TUNE.items())}
    config = with_compare(values, tune=turned)
    compare.compare(config)
    again = result_of(folder)
    assert trained_at(folder) == before
    assert again["identity"] != result["identity"]
    for key in ("tune", "validation", "winner", "recommendation"):
        assert again[key] == result[key]


def test_trainings_without_selection_scores_are_refused(tuned, tmp_path, values):
    _, folder = tuned
    shutil.copytree(folder, tmp_path / "run-compare")
    path = tmp_path / "run-compare/trainings/none/seed-42/metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    del metrics["selection"]
    path.write_text(json.dumps(metrics), encoding="utf-8")
    (tmp_path / "run-compare/comparison.json").unlink()
    moved = values | {"run": values["run"] | {"output_dir": str(tmp_path)}}
    with pytest.raises(RunError, match=r"has no scores on selection rows, which compare\.tune"):
        compare.compare(with_compare(moved, tune=TUNE))


def test_each_fold_chooses_by_itself_and_equal_settings_go_to_the_first():
    scores = {"": np.array([[0.5, 0.2], [0.5, 0.4]]), "long": np.array([[0.4, 0.9], [0.6, 0.1]])}
    assert best_settings(scores) == ["", "long"]
    assert best_setting(scores) == "long"


def test_settings_are_all_combinations_and_that_of_the_config(values):
    config = with_compare(
        values, tune={"learning_rate": [1e-4, 1e-3], "num_train_epochs": [2, 1.0]}, folds=3
    )
    assert [*settings_of(config)] == [
        "",
        "learning_rate=0.0001,num_train_epochs=1",
        "learning_rate=0.0001,num_train_epochs=2",
        "learning_rate=0.001,num_train_epochs=2",
    ]
    words = "7 strategies x 4 settings x 2 seeds x 3 folds = 168 trainings."
    assert words in tune_words(config, 7)
    assert "the setting of the config (learning_rate 0.001, num_train_epochs 1)" in tune_words(
        config, 7
    )


def test_too_few_selection_rows_are_refused(values):
    config = with_compare(values, selection="auto", tune=TUNE)
    words = r"compare\.tune chooses on selection rows: 'positive' would have 8 selection rows"
    with pytest.raises(DataError, match=words):
        prepare_shared(alone(config))
    config = with_compare(values, tune=TUNE, metric="minority_f1")
    with pytest.raises(DataError, match=r"tune chooses by minority_f1, but 'positive' would have"):
        prepare_shared(alone(config))


RATES = {"learning_rate": [1e-4, 1e-3]}
REFUSED = {
    "no setting": ({"tune": {}}, "compare.tune: is empty; name a setting"),
    "unknown name": (
        {"tune": {"learnin_rate": [1e-4]}},
        "compare.tune.learnin_rate is unknown; known: learning_rate, max_steps, num_train_epochs. "
        "Did you mean 'learning_rate'?",
    ),
    "no value": ({"tune": {"learning_rate": []}}, "compare.tune.learning_rate is a list; needed"),
    "equal values": (
        {"tune": {"learning_rate": [1e-4, 0.0001]}},
        "learning_rate holds a value twice; remove one",
    ),
    "no rate": ({"tune": {"learning_rate": [0]}}, "learning_rate.0 is 0; needed: greater than 0"),
    "two lengths": (
        {"tune": {"max_steps": [9], "num_train_epochs": [2]}},
        "holds num_train_epochs and max_steps, which both set the length; remove one",
    ),
    "nothing to choose": (
        {"tune": {"learning_rate": [1e-3]}},
        "compare.tune holds only the setting of the config",
    ),
    "no selection rows": (
        {"tune": RATES, "selection": "last_step"},
        "compare.selection: last_step has none. Set compare.selection: nested.",
    ),
    "fixed length": (
        {"tune": {"num_train_epochs": [2]}, "amount": 5},
        "compare.amount fixes the length of all trainings, and compare.tune.num_train_epochs",
    ),
    "steps override epochs": (
        {"tune": {"num_train_epochs": [2]}, "training": {"max_steps": 4}},
        "training.max_steps, which overrides epochs",
    ),
    "heads": ({"tune": RATES, "model": {"mode": "head"}}, "each chooses its own l2"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_settings_that_cannot_be_tried_are_refused(fault, values):
    given, words = REFUSED[fault]
    changed = {name: values[name] | given.get(name, {}) for name in ("training", "model")}
    own = {key: value for key, value in given.items() if key not in changed}
    with pytest.raises(ConfigError) as caught:
        refuse(with_compare(values | changed, **own), multi_label=False)
    assert words in str(caught.value)


@pytest.mark.exhaustive
def test_every_fold_chooses_its_setting_and_rows_and_steps_are_those_of_the_setting(
    values, tmp_path
):
    moved = values | {"run": values["run"] | {"output_dir": str(tmp_path)}}
    tune = {"learning_rate": [0.01], "max_steps": [4, 12]}
    config = with_compare(moved, tune=tune, folds=2, budget="rows", seeds=1)
    folder = compare.compare(config)  # an epoch has 77 rows in 3 steps; 4 steps are 128 rows
    tune = result_of(folder)["tune"]
    assert tune["as_configured"] == "learning_rate 0.001"
    for name, trials in tune["strategies"].items():
        strategy = name.removesuffix(" + thresholds")
        kind = "decided" if name == strategy else "with_thresholds"
        for fold, chosen in enumerate(trials["chosen"], 1):
            scores = {}
            for words in tune["settings"]:
                group = strategy
                if words != tune["as_configured"]:
                    group += "@" + words.replace(", ", ",").replace(" ", "=")
                path = folder / f"trainings/{group}/seed-42-fold-{fold}/metrics.json"
                metrics = json.loads(path.read_text(encoding="utf-8"))
                scores[words] = metrics["selection"][kind]["macro_f1"]
                max_steps = tune["settings"][words].get("max_steps")
                assert metrics["training"]["steps"] == {None: 3, 4: 5, 12: 15}[max_steps]
            assert scores[chosen] == max(scores.values())
    winner = load_config(str(folder / "winner.yaml"))
    assert training_run.train(winner).is_dir()

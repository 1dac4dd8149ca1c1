"""No training chooses on the rows that are compared."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from trainer import load_config
from trainer.comparison import compare, shared_data
from trainer.comparison.baseline_training import baseline_training
from trainer.comparison.grid import TrainingGrid
from trainer.comparison.selection import FIXED_L2, divide
from trainer.comparison.strategies import compared_names, sections_of, trained_strategies
from trainer.config.sections.balancing import BalanceSection
from trainer.data.prepare import read_splits
from trainer.data.split_rows import Fold
from trainer.errors import RunError
from trainer.run_folder.workers_folder import alone


def rows_of(num_a, num_b):
    """Rows of two classes; each two rows of a class are a group."""
    return [
        {"text": f"{label} number {i}", "label": label, "who": f"{label}{i // 2}"}
        for label, count in (("a", num_a), ("b", num_b))
        for i in range(count)
    ]


@pytest.fixture
def divided(tmp_path):
    """Function (rows, compare, ...) -> (selection, rows of each fold, clean rows)."""

    def make(rows, asked, **others):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        data = {"source": str(path), "label_column": "label", **others.pop("data", {})}
        values = {
            "model": {"name": "nowhere"},
            "data": data,
            "split": {"train": 0.4, "validation": 0.4, "test": 0.2},
            "compare": asked,
        }
        config = load_config(values | others)
        total = config.compare.folds
        found = [
            read_splits(
                config.data,
                config.split,
                BalanceSection(),
                seed=42,
                cache_dir=tmp_path / "cache",
                fold=fold,
            )
            for fold in ([Fold(n, total) for n in range(total)] if total else [None])
        ]
        clean = found[0][0]
        return *divide(config, clean, [splits for _, splits in found]), clean

    return make


def test_validation_rows_are_divided_in_two_halves_of_the_same_classes_and_whole_groups(divided):
    data = {"group_column": "who"}
    used, [rows], clean = divided(rows_of(200, 100), {"selection": "nested"}, data=data)
    chosen, compared = rows.splits.validation, rows.compared
    assert not {*chosen} & {*compared}
    assert (used.used, used.num_selection, used.num_compared) == ("nested", 60, 60)
    for ids in (chosen, compared):
        assert np.bincount(clean.label_ids_N[ids]).tolist() == [40, 20]
    groups = clean.rows.table["group"]
    assert not {*groups.take(chosen).to_pylist()} & {*groups.take(compared).to_pylist()}


def test_selection_rows_of_folds_are_training_rows_of_their_fold(divided):
    used, folds, _ = divided(rows_of(200, 200), {"folds": 4})
    assert used.used == "nested"
    assert used.num_compared == len(np.unique(np.concatenate([of.compared for of in folds]))) == 320
    for of in folds:
        parts = [of.splits.train, of.splits.validation, of.compared]
        assert [len(ids) for ids in parts] == [192, 48, 80]
        assert len(np.unique(np.concatenate(parts))) == 320


@pytest.mark.parametrize(
    ("num_rare", "others", "words"),
    [
        (100, {}, "nested: each training chooses on 60 selection rows; 60 other validation rows"),
        (
            95,
            {},
            "last_step: .*'b' would have 19 selection rows or compared rows",
        ),
        (100, {"training": {"load_best_model_at_end": False}}, "last_step: .*nothing is chosen"),
    ],
)
def test_auto_is_nested_where_all_classes_have_20_rows_on_both_sides(
    divided, num_rare, others, words
):
    used, _, _ = divided(rows_of(200, num_rare), {}, **others)
    assert re.match(words, used.words)


def sections(tiny_model, tweets, folder, **asked):
    return {
        "run": {"name": "mine", "output_dir": str(folder)},
        "model": {"name": str(tiny_model), "max_length": 32, "mode": asked.pop("mode", "head")},
        "data": {"source": str(tweets), "label_column": "sentiment"},
        "split": {"train": 0.4, "validation": 0.4, "test": 0.2},
        "training": {"num_train_epochs": 2, "per_device_train_batch_size": 32, "bf16": False},
        "compare": {"strategies": ["class_weights"], "seeds": 1} | asked,
    }


def result_of(folder):
    return json.loads((folder / "comparison.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def nested(tmp_path_factory, tiny_model, tweets):
    """(config, folder) of a finished nested comparison of heads."""
    folder = tmp_path_factory.mktemp("nested")
    config = load_config(sections(tiny_model, tweets, folder, selection="nested"))
    return config, compare.compare(config)


def test_heads_choose_their_strength_and_thresholds_on_rows_that_are_not_compared(nested):
    config, folder = nested
    shared = shared_data.prepare_shared(alone(config))
    rows, tokens = shared.first.rows, shared.first.tokens
    found = pq.read_table(folder / "trainings/none/seed-42/predictions.parquet")["row"].to_pylist()
    assert sorted(found) == sorted(rows.compared)
    assert result_of(folder)["validation"]["num_rows"] == len(rows.compared) == 48
    assert not {*rows.compared} & {*rows.splits.validation}
    assert len(tokens["validation"]) == len(rows.splits.validation) == 48
    grid = TrainingGrid(shared, folder / "scratch", ("none",), "head", False, "")
    assert grid.trainings["none"][0].config.model.head.l2 is None


def test_thresholds_are_a_strategy_that_trains_nothing(nested):
    config, folder = nested
    names = ["none", "none + thresholds", "class_weights", "class_weights + thresholds"]
    assert [*result_of(folder)["validation"]["strategies"]] == names
    assert sorted(path.name for path in (folder / "trainings").iterdir() if path.is_dir()) == [
        "class_weights",
        "none",
    ]
    assert sections_of(config, "class_weights + thresholds") == {
        "loss": {"class_weights": "balanced"},
        "decision": {"thresholds": "f1"},
    }


def test_thresholds_are_compared_once_where_the_config_sets_them():
    values = {"model": {"name": "nowhere"}, "data": {"source": "nowhere.csv"}}
    asked = values | {"compare": {"strategies": ["focal", "thresholds"]}}
    config = load_config(asked)
    assert trained_strategies(config) == ("none", "focal")
    assert compared_names(config, "focal") == ["focal", "focal + thresholds"]
    config = load_config(asked, ["compare.thresholds=false"])
    assert trained_strategies(config) == ("none", "focal", "thresholds")
    assert compared_names(config, "focal") == ["focal"]
    config = load_config(asked | {"decision": {"thresholds": "f1"}})
    assert compared_names(config, "none") == ["none"]


def test_a_comparison_of_an_earlier_version_is_refused_with_the_reason(nested):
    config, folder = nested
    path = folder / "config.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"  selection: \w+\n", "", text), encoding="utf-8")
    (folder / "cells").mkdir()  # where it kept its trainings
    words = r"an earlier version made it, which chose epochs on the rows that it compared.*resume"
    with pytest.raises(RunError, match=words):
        compare.compare(config)
    path.write_text(text, encoding="utf-8")
    (folder / "cells").rmdir()


def test_other_selection_refuses_trainings_that_chose_on_other_rows(nested):
    config, _ = nested
    values = config.to_dict()
    values["compare"] |= {"selection": "last_step"}
    values["model"]["head"]["l2"] = 0.01
    with pytest.raises(RunError, match=r"holds a (training|comparison) that "):
        compare.compare(load_config(values))


def test_last_step_chooses_nothing_and_the_winner_trains_as_it_was_compared(
    tmp_path, tiny_model, tweets
):
    folder = compare.compare(load_config(sections(tiny_model, tweets, tmp_path)))
    selection = result_of(folder)["selection"]
    assert (selection["used"], selection["num_compared"]) == ("last_step", 96)
    saved = load_config(str(folder / "trainings/none/seed-42/config.yaml"))
    winner = load_config(str(folder / "winner.yaml"))
    for config in (saved, winner):
        assert config.model.head.l2 == FIXED_L2
        assert not config.training_values["load_best_model_at_end"]
    fits = json.loads((folder / "trainings/none/seed-42/metrics.json").read_text(encoding="utf-8"))
    assert len(fits["evaluations"]) == 1
    assert "chooses nothing" in (folder / "comparison.html").read_text(encoding="utf-8")


RISING = [[10, 0.3], [20, 0.4], [30, 0.45], [40, 0.48]]
FLAT = [[10, 0.3], [20, 0.4], [30, 0.45], [40, 0.452]]


@pytest.mark.parametrize(
    ("evaluations", "is_enough", "words"),
    [
        ([RISING, FLAT], False, "gained +1.6 points of macro F1 on selection rows in its last"),
        ([FLAT], True, "it was trained long enough"),
        ([RISING[:3]], None, "cannot be told: 3 evaluations, 4 needed"),
    ],
)
def test_a_baseline_that_still_gains_was_not_trained_long_enough(evaluations, is_enough, words):
    found = baseline_training("none", evaluations, "selection rows")
    assert found["is_enough"] is is_enough
    assert words in found["words"]
    assert ("num_train_epochs" in found["words"]) == (is_enough is False)


def test_heads_and_trainings_without_evaluations_tell_nothing_of_their_length(nested):
    assert result_of(nested[1])["baseline_training"] is None
    assert baseline_training("none", [[]], "selection rows") is None

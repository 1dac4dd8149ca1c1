"""Comparisons of a small real model on real tweets: what is trained, what is shared, what is
told.
"""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from trainer import load_config
from trainer.comparison import compare, trainings
from trainer.comparison.budget import Budget
from trainer.comparison.grid import TrainingGrid
from trainer.comparison.shared_data import prepare_shared
from trainer.comparison.strategies import refuse, strategy_config, trained_name
from trainer.config.sections.compare import PRESETS
from trainer.data.balancing.balance import METHODS, plan_balance
from trainer.data.tokens.tokenise import PADDING
from trainer.errors import ConfigError, RunError
from trainer.run_folder.workers_folder import alone
from trainer.runs import training_run
from trainer.training.batches.batching import StepBatchSampler

pytestmark = pytest.mark.slow

STRATEGIES = [
    "undersample",
    "class_weights",
    {"name": "greedy", "balance": {"method": "smote", "neighbours": 500}},
]
STRATEGIES += [{"name": "greedier", "balance": {"method": "adasyn", "neighbours": 900}}]


def sections(tiny_model, tweets, output_dir, **others):
    values = {
        "run": {"name": "mine", "output_dir": str(output_dir)},
        "model": {"name": str(tiny_model), "max_length": 64, "mode": "head"},
        "data": {"source": str(tweets), "label_column": "sentiment"},
        "split": {"train": 0.5, "validation": 0.25, "test": 0.25},
        "training": {
            "num_train_epochs": 2,
            "per_device_train_batch_size": 16,
            "learning_rate": 3e-4,
            "bf16": False,
        },
        "compare": {"strategies": STRATEGIES, "seeds": 2},
    }
    return {key: values.get(key, {}) | others.get(key, {}) for key in values | others}


def config_of(folder, values, name="mine.yaml"):
    path = folder / name
    path.write_text(json.dumps(values), encoding="utf-8")
    return load_config(str(path))


def result_of(folder):
    return json.loads((folder / "comparison.json").read_text(encoding="utf-8"))


def both(*strategies):
    """The names of strategies without and with thresholds."""
    return [name for of in strategies for name in (of, f"{of} + thresholds")]


@pytest.fixture(scope="module")
def heads(tmp_path_factory, tiny_model, tweets):
    """(config, its values, folder) of a finished comparison of heads; two strategies of it cannot
    be trained.
    """
    folder = tmp_path_factory.mktemp("heads")
    values = sections(tiny_model, tweets, folder)
    config = config_of(folder, values)
    return config, values, compare.compare(config, command="equipoise compare --config mine.yaml")


def test_strategies_that_fail_are_told_with_the_reason_and_the_rest_completes(heads):
    _, _, folder = heads
    result = result_of(folder)
    assert list(result["validation"]["strategies"]) == both("none", "undersample", "class_weights")
    assert set(result["failed"]) == {"greedy", "greedier"}
    assert "500 neighbours need 501" in result["failed"]["greedy"]
    assert "900 neighbours need 901" in (folder / "comparison.html").read_text(encoding="utf-8")


def test_test_rows_are_predicted_by_the_best_and_the_baseline_alone(heads):
    _, _, folder = heads
    result = result_of(folder)
    tested = {"none", result["winner"]}
    assert set(result["test"]["strategies"]) == set(result["tested"]) == tested
    trained = {path.parent.parent.name for path in folder.glob("trainings/*/*/test.parquet")}
    assert trained == {trained_name(name) for name in tested}
    for path in folder.glob("trainings/*/*/predictions.parquet"):
        assert set(pq.read_table(path)["split"].to_pylist()) == {"validation"}


def test_a_test_split_without_the_rarest_class_is_compared_by_macro_f1_and_says_so(
    tmp_path, tiny_model
):
    labels = ["rare" if i in (5, 30, 31, 50, 51) else "ab"[i % 2] for i in range(80)]
    rows = [
        json.dumps({"text": f"text number {i}", "sentiment": label, "when": i})
        for i, label in enumerate(labels)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    timed = {
        "compare": {"strategies": ["class_weights"], "seeds": 1, "metric": "minority_recall"},
        "split": {"by_time": "when"},
    }
    config = config_of(tmp_path, sections(tiny_model, tmp_path / "rows.jsonl", tmp_path, **timed))
    words = (
        "compare.metric: minority_recall cannot be measured on test, which has no row of 'rare'; "
        "macro_f1 is compared there. Add rows of the class"
    )
    with pytest.warns(UserWarning, match=words):
        result = result_of(compare.compare(config))
    assert (result["validation"]["metric"], result["test"]["metric"]) == (
        "minority_recall",
        "macro_f1",
    )
    assert result["recommendation"].endswith(
        ". On test, macro F1 is compared, since no row of 'rare' is there."
    )


def test_figures_are_those_of_the_trainings(heads):
    _, _, folder = heads
    told = result_of(folder)["validation"]
    for strategy, values in told["strategies"].items():
        for seed, figure in zip((42, 43), values["figures"]["macro_f1"]["of_seeds"], strict=True):
            path = folder / f"trainings/{trained_name(strategy)}/seed-{seed}/metrics.json"
            metrics = json.loads(path.read_text(encoding="utf-8"))
            of = metrics if strategy == trained_name(strategy) else metrics["with_thresholds"]
            assert figure == pytest.approx(of["validation"]["macro_f1"])


def test_no_model_is_left(heads):
    _, _, folder = heads
    assert not list(folder.rglob("*.safetensors"))


def test_a_damaged_result_is_made_again_of_the_trainings(heads):
    config, _, folder = heads
    before = result_of(folder)
    (folder / "comparison.json").write_text("{}", encoding="utf-8")
    compare.compare(config, command=before["command"])
    assert result_of(folder) == before


def test_a_finished_comparison_is_not_trained_again(heads, capsys):
    config, _, folder = heads
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    assert compare.compare(config) == folder
    assert "nothing to do" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}


def test_page_that_cannot_be_drawn_costs_no_comparison_and_the_same_command_draws_it(
    heads, monkeypatch, caplog
):
    config, _, folder = heads
    page = (folder / "comparison.html").read_bytes()
    (folder / "comparison.html").unlink()
    (folder / "comparison.json").unlink()  # as before it was concluded

    def out_of_memory(result):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("trainer.comparison.page.compare_page.render", out_of_memory)
        compare.compare(config, command="equipoise compare --config mine.yaml")
    assert (
        f"{folder}/comparison.html: not written: MemoryError. The model and its figures do not "
        f"need it; the same command writes it." in caplog.messages
    )
    assert (folder / "comparison.json").is_file()
    compare.compare(config, command="equipoise compare --config mine.yaml")
    assert (folder / "comparison.html").read_bytes() == page


def test_another_strategy_keeps_what_is_trained_and_test_is_not_predicted_again(heads, tmp_path):
    _, values, folder = heads
    before = {path: path.stat().st_mtime_ns for path in folder.glob("trainings/*/*/*.parquet")}
    more = values | {
        "compare": values["compare"]
        | {"strategies": ["undersample", "class_weights", "oversample"]}
    }
    compare.compare(config_of(tmp_path, more))
    result = result_of(folder)
    names = both("none", "undersample", "class_weights", "oversample")
    assert list(result["validation"]["strategies"]) == names
    assert (
        before.items()
        <= {
            path: path.stat().st_mtime_ns for path in folder.glob("trainings/*/*/*.parquet")
        }.items()
    )


def test_another_config_is_refused_until_the_comparison_may_be_replaced(heads, tmp_path):
    _, values, folder = heads
    other = values | {
        "training": values["training"] | {"label_smoothing_factor": 0.1},
        "compare": {"strategies": ["undersample"], "seeds": 1},
    }
    with pytest.raises(
        RunError,
        match=(
            r"holds a comparison that differs: training.label_smoothing_factor is None there, 0.1 "
            r"here.*overwrite"
        ),
    ):
        compare.compare(config_of(tmp_path, other))
    other["run"] = values["run"] | {"overwrite": True}
    compare.compare(config_of(tmp_path, other))
    assert result_of(folder)["validation"]["num_seeds"] == 1
    other["compare"] = {
        "strategies": [{"name": "undersample", "balance": {"method": "oversample"}}],
        "seeds": 1,
    }
    compare.compare(
        config_of(tmp_path, other)
    )  # one strategy has changed: the other trainings stay
    assert (
        load_config(str(folder / "trainings/undersample/seed-42/config.yaml")).balance.method
        == "oversample"
    )
    other |= {"run": values["run"], "compare": {"strategies": ["undersample"], "seeds": 1}}
    with pytest.raises(
        RunError,
        match=(
            r"trainings/undersample/seed-42: holds a training that differs: balance.method is "
            r"oversample there, undersample here"
        ),
    ):
        compare.compare(config_of(tmp_path, other))


def test_a_folder_of_other_files_is_refused(tmp_path, tiny_model, tweets):
    (tmp_path / "mine-compare").mkdir()
    (tmp_path / "mine-compare/thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="holds files but no comparison"):
        compare.compare(config_of(tmp_path, sections(tiny_model, tweets, tmp_path)), resume="never")
    assert (tmp_path / "mine-compare/thesis.txt").read_text() == "mine"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_model, tweets):
    """(config, folder) of a finished comparison of whole models; rows are the budget."""
    folder = tmp_path_factory.mktemp("whole")
    values = sections(
        tiny_model,
        tweets,
        folder,
        model={"mode": "full"},
        compare={"strategies": ["undersample", "thresholds"], "budget": "rows"},
    )
    config = config_of(folder, values)
    return config, compare.compare(config)


def test_the_winner_s_config_trains_to_the_model_of_the_first_seed(whole):
    _, folder = whole
    winner = load_config(str(folder / "winner.yaml"))
    path = training_run.train(winner)
    name = result_of(folder)["winner"]
    assert path.name == f"mine-{name.replace(' + ', '-')}"
    own, of_first_seed = (
        json.loads(p.read_text(encoding="utf-8"))
        for p in (
            path / "metrics.json",
            folder / f"trainings/{trained_name(name)}/seed-42/metrics.json",
        )
    )
    assert own["validation"] == of_first_seed["validation"]
    tested = result_of(folder)["test"]["strategies"][result_of(folder)["winner"]]["figures"][
        "macro_f1"
    ]["of_seeds"][0]
    assert own.get("decision", own)["test"]["macro_f1"] == pytest.approx(tested)
    assert "How the balancing was chosen" in (path / "README.md").read_text(encoding="utf-8")


def test_every_strategy_sees_as_many_rows(whole):
    _, folder = whole
    seen = {}
    assert not (folder / "trainings/thresholds").exists()  # it is none with thresholds
    for strategy in ("none", "undersample"):
        config = load_config(str(folder / f"trainings/{strategy}/seed-42/config.yaml"))
        seen[strategy] = config.training_values["max_steps"]
    assert seen["none"] == 16  # 120 rows in 8 steps an epoch, twice
    assert seen["undersample"] == 16  # 240 rows of 60 an epoch: four epochs of 4 steps


def test_heads_start_equal_for_all_strategies_of_a_seed_and_differ_between_seeds(whole):
    config, folder = whole
    shared = prepare_shared(alone(config))
    grid = TrainingGrid(shared, folder / "scratch", ("none", "undersample"), "full", False, "")

    def head(strategy, number):
        training = grid.with_budget(strategy)[number]
        from trainer.run_folder.writer import RunFolder

        data = trainings.balanced_data(training, shared)
        build = trainings.trainer_builder(training, shared, data, RunFolder(folder / "scratch"))
        return build().model.classifier.weight.detach()

    assert torch.equal(head("none", 0), head("undersample", 0))
    assert not torch.equal(head("none", 0), head("none", 1))


def test_folds_validate_on_every_row_that_is_not_test(tmp_path, tiny_model, tweets):
    values = sections(
        tiny_model,
        tweets,
        tmp_path,
        compare={"strategies": ["class_weights"], "folds": 3, "seeds": 1},
    )
    folder = compare.compare(config_of(tmp_path, values))
    rows = [
        set(pq.read_table(path)["row"].to_pylist())
        for path in folder.glob("trainings/none/*/predictions.parquet")
    ]
    assert (
        sum(map(len, rows))
        == len(set.union(*rows))
        == result_of(folder)["validation"]["num_rows"]
        == 180
    )
    assert result_of(folder)["test"]["num_seeds"] == 3  # every fold's model counts by itself


def test_quick_asks_the_frozen_encoder_first_and_says_so(tmp_path, tiny_model, tweets, capsys):
    asked = {
        "strategies": ["undersample", "class_weights", "focal", "smote"],
        "quick": True,
        "seeds": 1,
        "budget": "steps",
        "amount": 4,
    }
    folder = compare.compare(
        config_of(
            tmp_path, sections(tiny_model, tweets, tmp_path, model={"mode": "full"}, compare=asked)
        )
    )
    result = result_of(folder)
    assert list(result["quick"]["comparison"]["strategies"]) == both(
        "none", "undersample", "class_weights", "focal", "smote"
    )
    assert len(set(result["quick"]["shortlist"]) - {"smote"}) == 2
    compared = result["validation"]
    assert set(compared["strategies"]) == {*both("none", *result["quick"]["shortlist"])}
    # the shortlist comes from the rows that are compared, so p counts all strategies
    assert compared["num_tests"] == 9
    assert "Shortlist of heads on the frozen encoder" in capsys.readouterr().out
    assert result["budget"]["amount"] == 4


def test_a_budget_in_seconds_becomes_steps_once_for_each_strategy(tmp_path, tiny_model, tweets):
    asked = {"strategies": ["oversample"], "budget": "seconds", "amount": 0.5, "seeds": 2}
    folder = compare.compare(
        config_of(
            tmp_path, sections(tiny_model, tweets, tmp_path, model={"mode": "full"}, compare=asked)
        )
    )
    for strategy in ("none", "oversample"):
        steps = json.loads(
            (folder / f"trainings/{strategy}/steps.json").read_text(encoding="utf-8")
        )["steps"]
        taken = {
            load_config(str(path)).training_values["max_steps"]
            for path in folder.glob(f"trainings/{strategy}/*/config.yaml")
        }
        assert taken == {2 * -(-steps // 2)}  # two evaluations, evenly


FAULTS = {
    "twice": ({"compare": {"strategies": ["focal", "focal"]}}, "strategies holds 'focal' twice"),
    "unknown": ({"compare": {"strategies": ["oversmaple"]}}, "oversample"),
    "baseline": ({"compare": {"strategies": [{"name": "none"}]}}, "which is the baseline"),
    "seconds": ({"compare": {"budget": "seconds"}}, "without amount"),
    "smote": (
        {"model": {"mode": "full"}, "compare": {"strategies": ["smote"]}},
        "compare.strategies: smote: balance.method smote makes new embeddings",
    ),
    "batches": (
        {"compare": {"strategies": ["class_balanced_batches"]}},
        "compare.strategies: class_balanced_batches: balance.method",
    ),
    "scope": (
        {
            "compare": {
                "strategies": [{"name": "x", "balance": {"method": "undersample", "scope": "all"}}]
            }
        },
        "x has balance.scope: all",
    ),
    "own scope": (
        {"balance": {"method": "undersample", "scope": "all"}},
        "balance.scope is 'all'; strategies are compared",
    ),
    "by": (
        {
            "compare": {
                "strategies": [{"name": "x", "balance": {"method": "floor", "by": "source"}}]
            }
        },
        "x has balance.by: source",
    ),
    "several labels": (
        {"compare": {"strategies": [{"name": "x", "decision": {"thresholds": "micro_f1"}}]}},
        "compare.strategies: x: decision.thresholds is 'micro_f1', which needs multi-label data",
    ),
    "streaming": ({"data": {"streaming": True}}, "data.streaming chooses rows by balance.method"),
    "ensemble": ({"ensemble": {"size": 2, "kind": "folds"}}, "compare trains single models"),
    "quick": ({"compare": {"quick": True}}, "quick already"),
    "prior": (
        {"decision": {"prior": "natural"}, "compare": {"strategies": ["focal"]}},
        "decision.prior has no known correction",
    ),
}


def refused(folder, values):
    refuse(config_of(folder, values), multi_label=False)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_compared_is_told_before_any_row_is_read(fault, tmp_path):
    others, words = FAULTS[fault]
    values = sections("nowhere", "nowhere.csv", tmp_path, **others)
    with pytest.raises(ConfigError, match=words):
        refused(tmp_path, values)


def test_folds_need_a_split_of_their_own(tmp_path):
    data = {"source": None, "train": "a.csv", "validation": "b.csv"}
    values = sections("nowhere", "nowhere.csv", tmp_path, data=data, compare={"folds": 3}) | {
        "split": None
    }
    with pytest.raises(ConfigError, match=r"compare\.folds cuts validation itself"):
        refused(tmp_path, values)


def test_every_preset_makes_a_config_in_one_mode_or_another(tmp_path):
    for name in PRESETS:
        asked = {
            "compare": {"strategies": ["undersample"] if name == "none" else [name]},
            "model": {"mode": "head"},
        }
        config = config_of(tmp_path, sections("nowhere", "nowhere.csv", tmp_path, **asked))
        derived = strategy_config(
            config,
            name,
            tmp_path / "run",
            mode="full" if name == "class_balanced_batches" else "head",
        )
        assert derived.to_dict()["balance"]["method"] == PRESETS[name].get("balance", {}).get(
            "method", "none"
        )


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_rows_budget_counts_rows_as_the_sampler_draws_them(method, drop_last):
    label_ids_N = np.repeat(np.arange(5), [400, 300, 200, 150, 50])
    plan = plan_balance(
        label_ids_N,
        np.arange(1100, dtype=np.uint64),
        labels=list("abcde"),
        method=method,
        parameter=None,
        seed=0,
    )
    training, budget = {"dataloader_drop_last": drop_last}, Budget("rows", 2500, 1, 32)
    balanced = {"balanced_label_ids_N": label_ids_N} if plan.balanced_batches else {}
    sampler = StepBatchSampler(
        plan.positions,
        np.ones(1100, np.int64),
        strategy="random",
        seed=0,
        rows_per_batch=32,
        batches_per_step=1,
        drop_last=drop_last,
        **balanced,
    )
    seen, steps = 0, 0
    while seen < 2500:
        sampler.set_epoch(steps // max(1, len(sampler)))
        for batch in sampler:
            if seen < 2500:
                seen, steps = seen + sum(row != PADDING for row in batch), steps + 1
    assert abs(budget.steps_of(plan, training) - steps) <= 1
    assert Budget("steps", 189, 3, 32).training(189)["eval_steps"] == 63

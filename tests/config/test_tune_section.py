"""The section `tune`: its keys are those of the config, and its faults are told in words."""

import pytest

from trainer import ConfigError, load_config
from trainer.tuning.space import Parameter, parameters, shown, with_values

BASE = {"model": {"name": "bert"}, "data": {"source": "a.csv"}}


def space_of(space, **sections):
    config = load_config(BASE | sections | {"tune": {"space": space}})
    return {each.key: each for each in parameters(config, multi_label=False)}


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (
            {"training.learning_rat": [1e-5, 1e-4]},
            "'training.learning_rat' is unknown. Did you mean 'training.learning_rate'? Known",
        ),
        ({"lerning": [1, 2]}, "'lerning' is unknown. Known are keys of balance, decision, loss,"),
        ({"data.limit": [1, 2]}, "'data.limit' is unknown. Known are keys of balance"),
        ({"model.name": ["a", "b"]}, "model.name is the same in all trials; remove it"),
        ({"training.weight_decay": [0.1]}, "training.weight_decay has 1 value; give two or more"),
        ({"training.weight_decay": [0.1, 0.1]}, "training.weight_decay holds a value twice"),
        ({"training.weight_decay": [0.2, 0.1]}, "give the low end first"),
        ({"training.weight_decay": 0.1}, "tune.space.training.weight_decay is 0.1; needed: a list"),
        ({"training.weight_decay": {"choice": [1, 2]}}, "choice is unknown; known: choices"),
    ],
)
def test_faults_of_a_space_are_told(space, words):
    with pytest.raises(ConfigError) as error:
        load_config(BASE | {"tune": {"space": space}})
    assert words in str(error.value)


def test_two_numbers_are_a_range_and_other_lists_are_choices():
    found = space_of(
        {
            "training.learning_rate": [1e-5, 1e-4],
            "training.weight_decay": [0.0, 0.1],
            "training.num_train_epochs": [2, 5],
            "training.per_device_train_batch_size": {"choices": [16, 64]},
            "loss.name": ["cross_entropy", "focal"],
        }
    )
    words = {key: each.words for key, each in found.items()}
    assert words == {
        "training.learning_rate": "1e-05 to 0.0001 (logarithmic)",
        "training.weight_decay": "0 to 0.1",
        "training.num_train_epochs": "2 to 5",
        "training.per_device_train_batch_size": "16, 64, 32",
        "loss.name": "cross_entropy, focal",
    }
    assert [each.is_whole for each in found.values()] == [False, False, True, False, False]


def test_value_of_the_config_is_always_part_of_the_space():
    found = space_of(
        {"training.learning_rate": [1e-5, 1e-4], "training.num_train_epochs": [2, 3]},
        training={"learning_rate": 1e-3, "num_train_epochs": 2.5},
    )
    rate, epochs = found.values()
    assert (rate.low, rate.high, rate.own) == (1e-5, 1e-3, 1e-3)
    assert (epochs.is_whole, epochs.own) == (False, 2.5)


@pytest.mark.parametrize("mode", ["full", "lora", "head"])
def test_default_space_fits_its_mode(mode):
    from trainer.tuning.space import faults

    config = load_config(BASE | {"model": {"name": "bert", "mode": mode}})
    assert list(faults(config, multi_label=False)) == []
    assert (
        "training.learning_rate" in {each.key for each in parameters(config, multi_label=False)}
    ) == (mode != "head")


@pytest.mark.parametrize("mode", ["full", "lora", "head"])
def test_default_space_of_several_labels_fits_its_mode_and_metric(mode):
    from trainer.tuning.space import faults

    def of(metric):
        sections = {"model": {"name": "bert", "mode": mode}, "tune": {"metric": metric}}
        config = load_config(BASE | sections)
        assert list(faults(config, multi_label=True)) == []
        return {each.key: each.choices for each in parameters(config, multi_label=True)}

    assert of("macro_f1")["decision.thresholds"] == (None, "f1", "common")
    assert of("micro_f1")["decision.thresholds"] == (None, "micro_f1", "common")
    found = of("mean_average_precision")
    assert "decision.thresholds" not in found
    assert found["loss.class_weights"] == ("none", "balanced", "effective_number")
    assert "distribution_balanced" in found["loss.name"]
    assert ("training.learning_rate" in found) == (mode != "head")


@pytest.mark.parametrize(
    ("sections", "kept", "choices"),
    [
        ({"loss": {"class_weights": {"a": 2.0}}}, "loss.class_weights", None),
        ({"balance": {"method": "undersample", "target_ratio": 2.0}}, "balance.method", None),
        (
            {"decision": {"thresholds": "cost", "costs": {"a": {"b": 2.0}}}},
            "decision.thresholds",
            None,
        ),
        (
            {"decision": {"prior": "natural"}, "model": {"name": "bert", "mode": "head"}},
            "loss.name",
            ("cross_entropy", "logit_adjusted"),
        ),
    ],
    ids=["a mapping", "a parameter of one method", "costs", "no focal loss with a prior"],
)
def test_default_space_leaves_out_what_contradicts_the_config(sections, kept, choices):
    found = {
        each.key: each.choices
        for each in parameters(load_config(BASE | sections), multi_label=False)
    }
    assert found.get(kept) == choices
    assert len(found) >= 3


def test_values_that_cannot_be_searched_are_refused():
    with pytest.raises(ConfigError, match="is a dict in the config, which cannot be searched"):
        space_of({"loss.class_weights": ["none", "sqrt"]}, loss={"class_weights": {"a": 2.0}})


def test_epochs_are_not_searched_by_default_if_steps_are_given():
    config = load_config(BASE | {"training": {"max_steps": 10}})
    assert "training.num_train_epochs" not in {
        each.key for each in parameters(config, multi_label=False)
    }


def test_nested_keys_are_set_and_others_kept():
    values = {"model": {"name": "bert", "lora": {"r": 4}}, "loss": {}}
    changed = with_values(values, {"model.lora.alpha": 8.0, "loss.name": "focal"})
    assert changed == {
        "model": {"name": "bert", "lora": {"r": 4, "alpha": 8.0}},
        "loss": {"name": "focal"},
    }
    assert values["loss"] == {}


def test_numbers_of_trials_have_three_digits():
    class Trial:
        def suggest_float(self, key, low, high, *, log):
            return 1.23456e-5

    assert Parameter("a", 1.0, low=1e-6, high=1.0).suggest(Trial()) == 1.23e-5
    assert [shown(value) for value in (None, True, 2, 0.5, "x")] == [
        "null",
        "true",
        "2",
        "0.5",
        "x",
    ]

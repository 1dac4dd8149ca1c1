import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config.config import Config, check_config, load_config
from trainer.config.faults import known_keys
from trainer.config.sections.balancing import LossSection
from trainer.config.sections.old_names import OLD_NAMES
from trainer.config.sections.training import OWN_SPECS, OWNED_KEYS
from trainer.config.yaml_source import YamlSource
from trainer.errors import ConfigError, TrainingError
from trainer.launch.distributed import name_of_process
from trainer.launch.exits import worded_errors

ONE_CHARACTER = (
    'needed: one ASCII character, such as ";" or "|"; a tab is written "\\t", in double quotes'
)
ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
LEAST = "model: {name: m}\ndata: {source: a.csv}\n"
USUAL = """\
run: {name: tweets, output_dir: runs, seed: 7}
model: {name: some/encoder, max_length: 128}
data:
  source: tweets.csv
  text_column: [prompt, completion]
  label_column: sentiment
split: {train: 0.7, validation: 0.15, test: 0.15}
balance: {method: undersample, scope: all}
loss:
  class_weights: {hate: 2, 1: 0.5}
training: {num_train_epochs: 4, learning_rate: 1e-5}
"""


@pytest.fixture(scope="session")
def generate():
    sys.path.insert(0, str(ROOT / "scripts"))
    return importlib.import_module("generate")


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Function (YAML text, *overrides) -> Config of the file c.yaml in the current folder."""
    monkeypatch.chdir(tmp_path)

    def write_and_load(text, *overrides):
        Path("c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config("c.yaml", overrides)

    return write_and_load


@pytest.fixture
def faults(load):
    """Function (YAML text, *overrides) -> lines of the ConfigError that they raise."""

    def lines(text, *overrides):
        with pytest.raises(ConfigError) as raised:
            load(text, *overrides)
        return str(raised.value).splitlines()

    return lines


def test_usual_yaml_loads(load):
    config = load(USUAL)
    assert (config.run.name, config.run.seed, config.model.max_length) == ("tweets", 7, 128)
    assert config.data.text_column == ["prompt", "completion"]
    assert (config.split.train, config.split.validation, config.split.test) == (0.7, 0.15, 0.15)
    assert config.loss.class_weights == {"hate": 2.0, "1": 0.5}
    assert (config.training.num_train_epochs, config.training.learning_rate) == (4.0, 1e-5)


def test_sections_left_out_get_their_defaults(load):
    config = load(LEAST)
    assert (config.run.seed, config.balance.method, config.loss.class_weights, config.split) == (
        42,
        "none",
        "none",
        None,
    )
    assert config.training.metric_for_best_model == "macro_f1"
    assert config.training.weight_decay is None  # transformers' own default stands
    assert "weight_decay" not in config.to_dict()["training"]


def test_resolved_config_loads_back_equal(load):
    config = load(USUAL)
    assert load(config.to_yaml()) == config


def test_with_training_changes_that_key_alone(load):
    config = load(USUAL)
    changed = config.with_training(bf16=True)
    assert changed.training.bf16 is True
    before, after = config.to_dict(), changed.to_dict()
    assert after["training"].pop("bf16") is True
    assert after == before


TEXTS = st.text(max_size=20) | st.sampled_from(
    [
        "no",
        "off",
        "null",
        "~",
        "1e-5",
        "0123",
        "2024-01-01",
        "a: b",
        "- x",
        "#",
        " ",
        "\u2028",
        "\x85",
        "ß\n\tx",
        "{",
    ]
)


@settings(max_examples=40, database=None)
@given(
    texts=st.lists(TEXTS, min_size=1, max_size=4),
    weights=st.dictionaries(TEXTS, st.floats(min_value=1e-300, max_value=1e300), max_size=3),
    rate=st.floats(min_value=0, max_value=1e6),
    seed=st.integers(0, 2**32 - 1),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_any_config_loads_back_equal(tmp_path_factory, texts, weights, rate, seed, flags):
    config = Config.model_validate(
        {
            "run": {"seed": seed, "output_dir": texts[0], "overwrite": flags[0]},
            "model": {"name": texts[-1]},
            "data": {
                "train": texts,
                "label_column": texts[0],
                "drop_labels": texts,
                "clean": {"empty": flags[1]},
            },
            "loss": {"class_weights": weights},
            "training": {
                "learning_rate": rate,
                "max_steps": seed,
                "lr_scheduler_kwargs": {"a": texts},
            },
        }
    )
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(str(path)) == config


@pytest.mark.parametrize(
    "text", ["\x85", "a\u2028b", " a\n\n", "no", "1e-5", "", "\ufeff", "\U0001f600"]
)
def test_unusual_text_loads_back_equal(load, text):
    config = load(LEAST).model_copy(update={"loss": LossSection(class_weights={text: 1.0})})
    assert load(config.to_yaml()).loss.class_weights == {text: 1.0}


@pytest.mark.parametrize(
    ("text", "number"), [("1e-5", 1e-5), ("5.0e-5", 5e-5), ("1E-4", 1e-4), (".5", 0.5), ("1", 1.0)]
)
def test_numbers_are_numbers_however_written(load, text, number):
    assert load(LEAST + f"training: {{learning_rate: {text}}}").training.learning_rate == number


@pytest.mark.parametrize("word", ["no", "off", "on", "yes", "none", "y", "n"])
def test_bare_words_are_text_as_value_and_as_key(load, word):
    config = load(LEAST.replace("a.csv", word) + f"loss: {{class_weights: {{{word}: 2.0}}}}")
    assert config.data.source == word
    assert config.loss.class_weights == {word: 2.0}


def test_eval_strategy_takes_a_bare_no(load):
    assert (
        load(
            LEAST + "training: {eval_strategy: no, load_best_model_at_end: false}"
        ).training.eval_strategy
        == "no"
    )


def test_duplicate_keys_are_refused(faults):
    assert faults(LEAST + "run:\n  seed: 1\n  seed: 2\n") == [
        'c.yaml:5: is not valid YAML: found duplicate key "seed" with value "2" (original value:'
        ' "1").'
    ]


def test_byte_order_mark_is_passed_over(load):
    assert load("\ufeff" + LEAST).model.name == "m"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "",
            "c.yaml: contains nothing; needed: sections such as model: and data:. See"
            " configs/quickstart.yaml.",
        ),
        (
            "- a",
            "c.yaml: contains list; needed: sections such as model: and data:. See"
            " configs/quickstart.yaml.",
        ),
        ("a: b: c", "c.yaml:1: is not valid YAML: mapping values are not allowed here."),
        (
            "a:\n\t- b",
            "c.yaml:2: is not valid YAML: found character '\\t' that cannot start any token.",
        ),
        (
            "a: \x01",
            "c.yaml: is not valid YAML: unacceptable character #x0001: special characters are not"
            " allowed.",
        ),
        (b"a: \xff", "c.yaml: is not UTF-8 text (byte 3). Save it as UTF-8."),
        (
            LEAST + "? [a, b]\n: 1\n",
            "c.yaml:3: a list or mapping is used where a name is needed (name: value).",
        ),
        (
            LEAST + "run: &x {name: *x}\n",
            "c.yaml: an alias (*name) is inside its own anchor (&name). Write the values out.",
        ),
        (
            LEAST + "run: !!python/object:os.system x\n",
            "c.yaml:3: is not valid YAML: could not determine a constructor for the tag",
        ),
    ],
)
def test_text_that_is_no_config_is_refused_in_words(faults, text, line):
    (found,) = faults(text)
    assert found.startswith(line)


def test_missing_file_is_refused_in_words():
    with pytest.raises(
        ConfigError,
        match=(
            r"^nowhere.yaml: cannot be read \(No such file or directory\). Give the path of a YAML"
            r" file.$"
        ),
    ):
        load_config("nowhere.yaml")


def test_every_fault_is_reported_at_once_with_line_and_nearest_name(faults):
    text = """\
modell: {name: m}
data:
  source: a.csv
  on_bad_rows: skipp
  drop_labels:
    - a
    - null
  clean:
    strpi: true
run:
  seed: 1.5
  name: ../up
balance:
  method: undresample
loss:
  class_weights: {1: -2}
training:
  lerning_rate: 3
  optim: adamw_torc
  num_train_epochs: many
"""
    assert faults(text) == [
        "c.yaml: model is missing.",
        "c.yaml:1: modell is unknown; known: augment, balance, compare, data, decision, ensemble,"
        " hub, loss, model, report, run, speed, split, training, tune."
        " Did you mean 'model'?",
        "c.yaml:4: data.on_bad_rows is 'skipp'; known: error, skip. Did you mean 'skip'?",
        "c.yaml:7: data.drop_labels.1 is empty; needed: text.",
        "c.yaml:9: data.clean.strpi is unknown; known: conflicts, duplicates, empty, evaluation,"
        " leakage, strip. Did you mean 'strip'?",
        "c.yaml:11: run.seed is 1.5; needed: a whole number.",
        "c.yaml:12: run.name is '../up'; needed: text that matches ^[A-Za-z0-9][A-Za-z0-9._-]*$.",
        "c.yaml:14: balance.method is 'undresample'; known: adasyn, borderline_smote,"
        " class_balanced_batches, floor, none, oversample, power, smote,"
        " undersample. Did you mean 'undersample'?",
        "c.yaml:16: loss.class_weights.1 is -2; needed: greater than 0.",
        *[
            line
            for line in faults(text)
            if line.startswith(
                (
                    "c.yaml:18: training.lerning_rate is unknown; known: ",
                    "c.yaml:19: training.optim is 'adamw_torc'; ",
                )
            )
        ],
        "c.yaml:20: training.num_train_epochs is 'many'; needed: a number.",
    ]
    assert faults(text)[-3].endswith("Did you mean 'learning_rate'?")
    assert faults(text)[-2].endswith("Did you mean 'adamw_torch'?")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "1: 2",
            "c.yaml:3: 1 is unknown; known: augment, balance, compare, data, decision, ensemble,"
            " hub, loss, model, report, run, speed, split, training, tune.",
        ),
        ("loss:", "c.yaml:3: loss is empty; needed: a section (name: value)."),
        ("training: []", "c.yaml:3: training is a list; needed: a section (name: value)."),
        ("run: {overwrite: 1}", "c.yaml:3: run.overwrite is 1; needed: true or false."),
        ("run: {num_threads: true}", "c.yaml:3: run.num_threads is true; needed: a whole number."),
        ("split: {train: .inf}", "c.yaml:3: split.train is inf; needed: a finite number."),
        (
            "loss: {class_weights: 3}",
            "c.yaml:3: loss.class_weights is 3; known: a mapping (name: value), balanced,"
            " effective_number, none, sqrt.",
        ),
        (
            "loss: {class_weights: {a: x}}",
            "c.yaml:3: loss.class_weights.a is 'x'; needed: a number.",
        ),
        (
            "split: {train: 0.5, validation: 0.4}",
            "c.yaml:3: split: shares add up to 0.9; they must add up to 1.",
        ),
        (
            "decision: {min_precision: 0.8}",
            "c.yaml:3: decision: min_precision is set, but only thresholds: recall_at_precision"
            " uses it.",
        ),
        (
            "decision: {thresholds: cost}",
            "c.yaml:3: decision: thresholds: cost and costs: {true label: {predicted label: cost}}"
            " need each other.",
        ),
        (
            "decision: {prior: natrual}",
            "c.yaml:3: decision.prior is 'natrual'; known: a mapping (name: value), natural,"
            " uniform. Did you mean 'natural'?",
        ),
        ("decision: {prior: {a: 0}}", "c.yaml:3: decision.prior.a is 0; needed: greater than 0."),
        ("ensemble: {size: 3, member: 4}", "c.yaml:3: ensemble: member is 4, but size is 3."),
        ("ensemble: {kind: folds}", "c.yaml:3: ensemble: kind: folds needs size 2 or more."),
        ("hub: {push: true}", "c.yaml:3: hub: push needs repo_id: user/name."),
        ("hub: {repo_id: a/b, every: save}", "c.yaml:3: hub: every: save needs push: true."),
        (
            "hub: {language: English}",
            "c.yaml:3: hub.language is 'English'; needed: text that matches"
            " ^([a-z]{2,3}|code|multilingual)$ or a list.",
        ),
        (
            "hub: {commit_message: ''}",
            "c.yaml:3: hub.commit_message is ''; needed: at least 1 character.",
        ),
        (
            "balance: {scope: all}",
            "c.yaml:3: balance: method none draws no rows; scope: all and resample_each_epoch need"
            " another method, such as undersample.",
        ),
        (
            "balance: {method: oversample, scope: all}",
            "c.yaml:3: balance: scope: all needs method: undersample, without by; otherwise copies"
            " of a row could be in both train and validation.",
        ),
        (
            "balance: {method: undersample, target_ratio: 0.5}",
            "c.yaml:3: balance: target_ratio is 0.5; method undersample needs 1 or more.",
        ),
        (
            "balance: {method: oversample, target_ratio: 1.5}",
            "c.yaml:3: balance: target_ratio is 1.5; method oversample needs 0 to 1.",
        ),
        (
            "balance: {method: power, alpha: -1}",
            "c.yaml:3: balance: alpha is -1; method power needs 0 to 1.",
        ),
        (
            "balance: {method: power, min_share: 0.1}",
            "c.yaml:3: balance: min_share is set, but method power does not use it; it belongs to"
            " floor.",
        ),
        (
            "balance: {target_ratio: 2}",
            "c.yaml:3: balance: target_ratio is set, but method none does not use it; it belongs"
            " to undersample or oversample.",
        ),
        (
            "balance: {method: floor, by_label: true}",
            "c.yaml:3: balance: by_label needs by: a column of domains.",
        ),
        (
            "balance: {method: class_balanced_batches, by: site}",
            "c.yaml:3: balance: class_balanced_batches balances labels; with by: use floor, power,"
            " oversample or undersample.",
        ),
        (
            "loss: {name: focall}",
            "c.yaml:3: loss.name is 'focall'; known: asymmetric, balanced_softmax, cb_ntr,"
            " cross_entropy, distribution_balanced, focal, logit_adjusted, ntr_focal. Did you mean"
            " 'focal'?",
        ),
        (
            "loss: {name: focal, gamma: -1}",
            "c.yaml:3: loss.gamma is -1; needed: greater than or equal to 0.",
        ),
        (
            "loss: {gamma: 1}",
            "c.yaml:3: loss: gamma is set, but name cross_entropy does not use it; it belongs to"
            " focal or asymmetric or ntr_focal or cb_ntr or distribution_balanced.",
        ),
        (
            "loss: {name: cb_ntr, class_weights: balanced}",
            "c.yaml:3: loss: name cb_ntr has class_weights: effective_number; for others use"
            " ntr_focal.",
        ),
        (
            "loss: {name: balanced_softmax, tau: 2}",
            "c.yaml:3: loss: tau is set, but name balanced_softmax does not use it; it belongs to"
            " logit_adjusted.",
        ),
        (
            "loss: {class_weights: sqrt, beta: 0.9}",
            "c.yaml:3: loss: beta is set, but only class_weights: effective_number uses it.",
        ),
        (
            "balance: {method: undersample, scope: all, resample_each_epoch: true}",
            "c.yaml:3: balance: resample_each_epoch needs scope: train; scope: all removes the"
            " other rows before the split.",
        ),
    ],
)
def test_fault_is_worded_with_what_was_found_and_what_is_allowed(faults, text, line):
    assert faults(LEAST + text) == [line]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (
            "{}",
            "data: needs either source: (one file, split here) or train: (given files), not both"
            " or neither.",
        ),
        (
            "{source: a, train: b}",
            "data: needs either source: (one file, split here) or train: (given files), not both"
            " or neither.",
        ),
        (
            "{source: a, test: b}",
            "data: has source: together with validation: or test:; given files start with train:.",
        ),
        ("{source: a, separator: ab}", f"data.separator: is 'ab'; {ONE_CHARACTER}."),
        ("{source: a, separator: '\\t'}", f"data.separator: is '\\\\t'; {ONE_CHARACTER}."),
        ("{source: a, quote_char: §}", f"data.quote_char: is '§'; {ONE_CHARACTER}."),
        (
            "{source: a, label_map: {a: ' '}}",
            "data.label_map.a: is empty; needed: a name, or null to drop the label.",
        ),
        (
            "{source: a, label_map: {1: a, '1': b}}",
            "data.label_map: contains the label 1 twice; needed: once.",
        ),
        (
            "{source: a, text_column: []}",
            "data.text_column is a list; needed: text or at least 1 item.",
        ),
        ("{source: {a: b}}", "data.source is a mapping; needed: text or a list."),
        (
            "{source: a, split_names: {dev: x}}",
            "data.split_names.dev is 'dev'; known: source, test, train, validation.",
        ),
    ],
)
def test_fault_of_data_is_worded(faults, data, line):
    assert faults(f"model: {{name: m}}\ndata: {data}\n") == [f"c.yaml:2: {line}"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "data: {train: a}\nbalance: {method: undersample, scope: all}",
            "balance.scope is 'all' with given files; it needs data.source, one pool to balance"
            " and split.",
        ),
        (
            "data: {train: a, validation: b}\nsplit: {}",
            "split is set although data.validation is given; remove split, or give train: alone.",
        ),
        (
            "data: {train: a, test: b}\nsplit: {train: 0.8, validation: 0.1, test: 0.1}",
            "split.test is set although data.test is given; remove one of them.",
        ),
        (
            "data: {train: a}\nloss: {name: focal}\ntraining: {label_smoothing_factor: 0.1}",
            "training.label_smoothing_factor has no meaning for loss.name: focal; remove it, or"
            " use cross_entropy or logit_adjusted.",
        ),
        (
            "data: {train: a}\nensemble: {size: 2}\nhub: {push: true, repo_id: a/b}",
            "hub.push with ensemble.size above 1: a repository holds one model; push a member's"
            " model folder, or set ensemble.size: 1.",
        ),
        (
            "data: {train: a, validation: b}\nensemble: {size: 2, kind: folds}",
            "ensemble.kind: folds cuts validation itself; remove data.validation, and"
            " balance.scope: all.",
        ),
        (
            "data: {train: a}\nloss: {name: focal}\ndecision: {prior: natural}",
            "decision.prior has no known correction for loss.name: focal with gamma above 0; its"
            " scores are no log probabilities. Remove it, or set loss.name: cross_entropy.",
        ),
        (
            "data: {train: a}\ndecision: {prior: uniform}\ntraining: {label_smoothing_factor: 0.1}",
            "decision.prior has no known correction for training.label_smoothing_factor; remove"
            " one of them.",
        ),
    ],
)
def test_sections_that_contradict_each_other_are_refused(faults, text, line):
    assert faults(f"model: {{name: m}}\n{text}\n") == [f"c.yaml: {line}"]


@pytest.mark.parametrize(
    "repo_id",
    ["me", "me/a/b", "me/a--b", "me/a..b", "me/a.git", "me/a b", "ü/a", "-me/a", "me/" + 97 * "a"],
)
def test_name_that_the_hub_would_not_take_is_refused(faults, repo_id):
    words = (
        "needed: user/name of letters, digits and -, in the name also _ and . ; no '--', no '..',"
        " no '.git' at its end, at most 96 characters."
    )
    line = f"c.yaml:3: hub.repo_id: '{repo_id}' is not a repository name; {words}"
    assert faults(f"{LEAST}hub: {{repo_id: {repo_id}}}") == [line]


def test_saves_are_pushed_of_whole_models_alone(faults):
    line = (
        "hub.every is 'save' with model.mode: lora, whose checkpoints contain no complete model."
        " Set hub.every: end."
    )
    assert faults(
        "model: {name: m, mode: lora}\ndata: {source: s}\n"
        "hub: {push: true, repo_id: a/b, every: save}\n"
    ) == [f"c.yaml: {line}"]


def test_override_wins_over_file_and_is_read_as_yaml(load):
    config = load(
        USUAL,
        "training.learning_rate=1e-3",
        "data.clean.strip=false",
        "run.name=b",
        "loss.class_weights={hate: 3}",
        "model.revision=a=b",
    )
    assert config.training.learning_rate == 1e-3
    assert config.data.clean.strip is False
    assert config.run.name == "b"
    assert config.loss.class_weights == {"hate": 3.0}
    assert config.model.revision == "a=b"


def test_override_changes_one_key_and_keeps_its_neighbours(load):
    config = load(USUAL, "loss.class_weights.hate=3")
    assert config.loss.class_weights == {"hate": 3.0, "1": 0.5}


def test_fault_of_an_override_names_the_override(faults):
    assert faults(USUAL, "run.seed=x", "run.sede=1", "loss.class_weights={hate: -1}") == [
        "--set run.seed: run.seed is 'x'; needed: a whole number.",
        "--set run.sede: run.sede is unknown; known: name, num_processes, num_threads, output_dir,"
        " overwrite, seed, timeout_minutes. Did you mean 'seed'?",
        "--set loss.class_weights: loss.class_weights.hate is -1; needed: greater than 0.",
    ]


@pytest.mark.parametrize("override", ["seed=1", "run.seed", "run.=1", ".seed=1", "="])
def test_override_without_section_key_and_value_is_refused(faults, override):
    assert faults(LEAST, override) == [
        f"--set {override}: needed: section.key=value, such as --set training.num_train_epochs=3."
    ]


def test_override_that_is_not_yaml_is_refused(faults):
    (line,) = faults(LEAST, "run.seed=[1")
    assert line.startswith("--set run.seed=[1: the value is not valid YAML: expected ',' or ']'")


@pytest.mark.parametrize("key", sorted(OWNED_KEYS))
def test_owned_key_of_training_is_refused_with_the_place_to_set_it(faults, key):
    assert faults(LEAST + f"training: {{{key}: x}}") == [
        f"c.yaml:3: training.{key} is decided elsewhere; {OWNED_KEYS[key]}."
    ]


@pytest.mark.parametrize(
    "remedy",
    sorted(
        {remedy for remedy in OWNED_KEYS.values() if remedy.startswith("set ") and "." in remedy}
    ),
)
def test_place_named_for_an_owned_key_exists(remedy):
    for path in remedy.removeprefix("set ").split(" and "):
        section, _, key = path.partition(".")
        assert key in Config.model_fields[section].annotation.model_fields


def test_own_keys_of_training_are_checked(faults):
    assert faults(
        LEAST + "training: {early_stopping_patience: often, train_sampling_strategy: by_length}"
    ) == [
        "c.yaml:3: training.train_sampling_strategy is 'by_length'; known: group_by_length,"
        " random, sequential. Did you mean 'group_by_length'?",
        "c.yaml:3: training.early_stopping_patience is 'often'; needed: a whole number.",
    ]


def test_snapshot_of_training_arguments_equals_the_installed_class(generate):
    committed = json.loads(
        (ROOT / "trainer/config/sections/training_arguments.json").read_text(encoding="utf-8")
    )
    installed = generate.training_arguments()
    if "activation_checkpointing" not in installed:  # transformers 5.22
        for key in ("checkpointing", "checkpointing_kwargs"):
            del committed[f"activation_{key}"], committed[f"gradient_{key}"]
            del installed[f"gradient_{key}"]
    assert committed == installed


def test_owned_and_own_keys_are_training_arguments():
    committed = json.loads(
        (ROOT / "trainer/config/sections/training_arguments.json").read_text(encoding="utf-8")
    )
    assert set(OWNED_KEYS) <= set(committed)
    assert set(OWN_SPECS) - set(committed) == {
        "early_stopping_patience",
        "early_stopping_threshold",
        "layerwise_learning_rate_decay",
        "refit_head",
    }


def test_generated_files_are_up_to_date(generate):
    stale = [
        str(path.relative_to(ROOT))
        for path, text in generate.generated().items()
        if path.read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run python scripts/generate.py"


def test_there_are_configs():
    assert "quickstart.yaml" in [path.name for path in CONFIGS]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_config_loads_and_points_editors_at_the_schema(path):
    load_config(str(path))
    assert (
        path.read_text(encoding="utf-8").splitlines()[0]
        == "# yaml-language-server: $schema=schema.json"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import trainer",
        "import trainer.cli; trainer.cli.app(['--help'], standalone_mode=False)",
        "import trainer\ntry: trainer.load_config('nowhere.yaml')\n"
        "except trainer.ConfigError: pass\nelse: raise SystemExit('it loaded')",
        "import trainer; trainer.load_config('configs/quickstart.yaml')",
    ],
    ids=["import", "help", "config error", "config"],
)
def test_nothing_heavy_is_imported_before_a_config_is_right(code):
    check = (
        "\nimport sys\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'sklearn', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + check], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_config_error_ends_the_command_with_code_2_and_no_traceback(run_cli, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(LEAST + "run: {sed: 1}\n", encoding="utf-8")
    done = run_cli("train", "--config", path)
    assert done.returncode == 2
    known = "name, num_processes, num_threads, output_dir, overwrite, seed, timeout_minutes"
    assert done.stderr == f"{path}:3: run.sed is unknown; known: {known}. Did you mean 'seed'?\n"
    assert done.stdout == ""


def test_resume_takes_auto_or_never_only(run_cli):
    done = run_cli("train", "--config", "configs/quickstart.yaml", "--resume", "maybe")
    assert done.returncode == 2
    assert "'maybe' is not one of 'auto'" in done.stderr
    assert "Traceback" not in done.stderr


def test_schema_command_prints_the_committed_schema(run_cli):
    done = run_cli("schema")
    assert json.loads(done.stdout) == json.loads(
        (ROOT / "configs/schema.json").read_text(encoding="utf-8")
    )


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("c.yaml:1: wrong."), 2, "c.yaml:1: wrong.\n"),
        (
            OSError(28, "No space left on device", "runs/a"),
            2,
            "runs/a: No space left on device. Free space; all that was saved before is kept.\n",
        ),
        (
            KeyboardInterrupt(),
            130,
            "stopped by the keyboard; run the same command again to resume from the last"
            " checkpoint, if there is one.\n",
        ),
    ],
    ids=["ours", "system", "keyboard"],
)
def test_error_becomes_one_message_and_an_exit_code_said_by_the_main_process(
    monkeypatch, capsys, error, code, message
):
    for rank, said in (
        ("0", message),
        (
            "1",
            f"{name_of_process().replace('rank 0', 'rank 1')}: {message}"
            if type(error) is OSError
            else "",
        ),
    ):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(SystemExit) as stopped, worded_errors():
            raise error
        assert (stopped.value.code, capsys.readouterr().err) == (code, said)


def test_system_error_without_a_number_is_told_in_its_own_words(capsys):
    with pytest.raises(SystemExit), worded_errors():
        raise OSError("200 requested and 100 written")
    assert capsys.readouterr().err == "a file: 200 requested and 100 written.\n"


def test_what_may_have_happened_on_one_process_alone_is_said_there(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit), worded_errors():
        raise TrainingError("the training loss is nan at step 3.")
    assert capsys.readouterr().err == f"{name_of_process()}: the training loss is nan at step 3.\n"


def test_what_a_machine_lacks_is_said_there_before_the_processes_know_each_other(
    monkeypatch, capsys
):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(SystemExit), worded_errors():
        raise ConfigError("c.yaml: no such file.")
    assert capsys.readouterr().err == f"{name_of_process()}: c.yaml: no such file.\n"


def test_label_that_is_its_own_text_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "model: {name: x}\ndata: {source: t.csv, text_column: a, label_column: a}\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match="label_column and text_column are both 'a'"):
        load_config(str(path))


def test_boolean_label_keys_are_spelt_as_data_files_spell_them(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "model: {name: x}\ndata: {source: t.csv}\nloss: {class_weights: {true: 2, 7: 3}}\n",
        encoding="utf-8",
    )
    assert load_config(str(path)).loss.class_weights == {"true": 2.0, "7": 3.0}


@pytest.mark.parametrize("place", ["training", "model", "data", ""])
@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        (
            "group_by_length",
            "set training.train_sampling_strategy: group_by_length, the default",
        ),
        ("no_cuda", "set training.use_cpu"),
        ("overwrite_output_dir", "set run.overwrite"),
        ("tokenizer", "leave it out: the tokenizer comes with model.name"),
        ("evaluation_strategy", "set training.eval_strategy"),
        ("logging_dir", "leave it out: everything of a run goes into run.output_dir"),
        ("save_safetensors", "leave it out: models are always saved as safetensors"),
        (
            "include_inputs_for_metrics",
            "leave it out: metrics need only labels and probabilities",
        ),
        ("warmup_ratio", "set training.warmup_steps; a number below 1 is a share of all steps"),
    ],
)
def test_old_names_of_settings_are_hinted_wherever_they_stand(place, name, remedy):
    values = {"model": {"name": "m"}, "data": {"source": "x.csv"}}
    values |= {place: {**values.get(place, {}), name: 1}} if place else {name: 1}
    with pytest.raises(ConfigError) as raised:
        check_config(YamlSource("c.yaml", values))
    where = f"{place}.{name}" if place else name
    assert (
        str(raised.value)
        == f"c.yaml: {where} is a name of older versions, or of other programs; {remedy}."
    )


@pytest.mark.parametrize(
    ("place", "name", "remedy"),
    [
        ("model", "learning_rate", "set training.learning_rate"),
        ("", "text_column", "set data.text_column"),
        ("data", "max_length", "set model.max_length"),
        (
            "model",
            "fp16_full_eval",
            "leave it out: results are computed in float32, as pipeline() computes",
        ),
        ("", "output_dir", "set run.output_dir"),
    ],
)
def test_key_in_the_wrong_section_is_sent_to_the_right_one(place, name, remedy):
    values = {"model": {"name": "m"}, "data": {"source": "x.csv"}}
    values |= {place: {**values.get(place, {}), name: 1}} if place else {name: 1}
    with pytest.raises(ConfigError, match=rf"{name} is unknown here; {re.escape(remedy)}\.$"):
        check_config(YamlSource("c.yaml", values))


def test_hints_for_old_names_name_keys_that_exist_and_no_old_name_is_a_key_of_training():
    sections = {name: set(known_keys(Config, (name,))) for name in known_keys(Config, ())}
    for name, remedy in OLD_NAMES.items():
        assert name not in sections["training"] | set(OWNED_KEYS)
        for section, key in re.findall(r"\b(\w+)\.(\w+)", remedy):
            assert key in sections[section], (name, remedy)


VALUES = {"model": {"name": "m"}, "data": {"source": "a.csv"}}


def test_dict_loads_like_the_file_with_paths_and_numbers_of_numpy(load):
    own = {
        "model": {"name": Path("m")},
        "data": {"source": Path("a.csv"), "text_column": np.array(["prompt", "answer"])},
        "run": {"seed": np.int64(7)},
        "loss": {"class_weights": {"hate": np.float64(2)}},
    }
    text = LEAST.replace("}\n", "}\nrun: {seed: 7}\nloss: {class_weights: {hate: 2}}\n", 1)
    text = text.replace("a.csv", "a.csv, text_column: [prompt, answer]")
    loaded = load_config(own, ["balance.method=undersample"])
    assert loaded == load(text, "balance.method=undersample")
    assert load_config(loaded) is loaded
    overridden = load_config(loaded, ["run.seed=9", "balance.method=none"])
    assert overridden.to_dict() == load_config(Path("c.yaml"), "run.seed=9").to_dict()
    assert own["run"] == {"seed": 7}


def test_dict_that_contains_itself_is_refused():
    values = dict(VALUES)
    values["run"] = values
    with pytest.raises(ConfigError, match="a dict or list in it contains itself"):
        load_config(values)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["training.layerwise_learning_rate_decay=0.9", "model.mode=lora"],
            "layerwise_learning_rate_decay is set with model.mode: lora, which trains adapters",
        ),
        (
            ["training.layerwise_learning_rate_decay=0.9", "model.mode=head"],
            "layerwise_learning_rate_decay is set with model.mode: head, which trains no layer",
        ),
        (
            ["training.layerwise_learning_rate_decay=0.9", "training.fsdp=full_shard"],
            "is set with training.fsdp, which joins the weights of several layers",
        ),
        (["training.layerwise_learning_rate_decay=1.1"], "needed: less than or equal to 1"),
        (
            ["model.reinitialise_layers=2", "model.mode=lora"],
            "model.reinitialise_layers is set with model.mode: lora",
        ),
        (
            ["training.refit_head=balanced", "model.mode=lora"],
            "training.refit_head is set with model.mode: lora",
        ),
        (
            ["training.refit_head=balanced", "decision.prior=natural"],
            "training.refit_head is set with decision.prior, which knows only the balancing of",
        ),
        (["loss.defer_weights=0.6"], "defer_weights is set, but class_weights is none"),
        (
            ["loss.defer_weights=0.6", "loss.class_weights=balanced", "model.mode=head"],
            "loss.defer_weights is set with model.mode: head, whose fit has no steps",
        ),
    ],
)
def test_layers_and_stages_that_do_not_fit_are_refused(overrides, words):
    with pytest.raises(ConfigError, match=words):
        load_config(VALUES, overrides)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (VALUES | {"run": {"sed": 1}}, "run.sed is unknown; known: .* Did you mean 'seed'?"),
        (VALUES | {"run": {"seed": "7"}}, "run.seed is '7'; needed: a whole number."),
        (VALUES | {"run": {1: 2}}, "run.1 is unknown; known: name, .*"),
        (VALUES | {3: {}}, "3 is unknown; known: augment, .*"),
        (VALUES | {"run": {"seed": object()}}, "run.seed is a object; needed: a whole number."),
        ({"model": {"name": "m"}}, "data is missing."),
        (["model"], "the config is of type list; needed: the path of a YAML file, a dict or .*"),
        (None, "the config is of type NoneType; needed: the path of a YAML file, a dict or .*"),
    ],
)
def test_fault_of_a_dict_is_named_by_its_keys(given, message):
    with pytest.raises(ConfigError) as raised:
        load_config(given)
    assert re.fullmatch(message.replace("?", r"\?"), str(raised.value))

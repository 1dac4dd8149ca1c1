import re
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.audit.advice import RULES, advise
from trainer.audit.facts import Facts
from trainer.config.config import check_config
from trainer.config.sections.compare import PRESETS
from trainer.config.yaml_source import YamlSource, read_yaml
from trainer.training.length import PlannedLength

PLAIN = Facts(imbalance_ratio=2.0, minority_label="rare", num_classes=3, smallest_rows=500)

REACHED_BY = {
    "label_issues": {"doubtful_ratio": 0.05, "classifier_macro_f1": 0.6},
    "soft_leakage": {"soft_leakage_ratio": 0.01},
    "conflicting_labels": {"conflict_ratio": 0.01},
    "odd_characters": {"odd_ratio": 0.01},
    "truncation": {"truncated_ratio": 0.1, "max_length": 128},
    "few_steps": {"planned": PlannedLength(2_400, 3, 32, epochs=3)},
    "balanced": {"imbalance_ratio": 1.0},
    "mild": {"imbalance_ratio": 3.0},
    "long_tail": {"imbalance_ratio": 10.1, "num_classes": 20, "smallest_rows": 3},
    "tiny_minority": {"imbalance_ratio": 3.1, "smallest_rows": 49},
    "thresholds": {"imbalance_ratio": 3.1},
}


def test_every_rule_is_listed_here():
    assert list(REACHED_BY) == [rule.name for rule in RULES]


@pytest.mark.parametrize("name", REACHED_BY)
def test_rule_is_reached_at_its_threshold_and_names_its_source(name):
    found = {advice.rule: advice for advice in advise(replace(PLAIN, **REACHED_BY[name]))}
    assert name in found
    assert found[name].source
    assert found[name].text.endswith(".")


@pytest.mark.parametrize(
    ("name", "just_below"),
    [
        ("label_issues", {"doubtful_ratio": 0.049, "classifier_macro_f1": 0.9}),
        ("label_issues", {"doubtful_ratio": 0.5, "classifier_macro_f1": 0.59}),
        ("soft_leakage", {"soft_leakage_ratio": 0.009}),
        ("conflicting_labels", {"conflict_ratio": 0.009}),
        ("odd_characters", {"odd_ratio": 0.009}),
        ("truncation", {"truncated_ratio": 0.09}),
        ("balanced", {"imbalance_ratio": 1.01}),
        ("few_steps", {"planned": PlannedLength(2_400, 3, 32, epochs=7)}),
        ("mild", {"imbalance_ratio": 3.1}),
        ("tiny_minority", {"imbalance_ratio": 11.0, "smallest_rows": 50}),
        ("long_tail", {"imbalance_ratio": 11.0, "num_classes": 19}),
        ("thresholds", {"imbalance_ratio": 3.0}),
    ],
)
def test_rule_is_not_reached_just_below_its_threshold(name, just_below):
    assert name not in [advice.rule for advice in advise(replace(PLAIN, **just_below))]


def test_data_comes_before_method_and_one_method_wins():
    everything = {key: value for values in REACHED_BY.values() for key, value in values.items()}
    kinds = [advice.kind for advice in advise(replace(PLAIN, **everything))]
    assert kinds == ["data"] * 5 + ["training", "method"]
    (training, method) = advise(replace(PLAIN, **REACHED_BY["few_steps"]))
    assert (training.kind, method.kind) == ("training", "method")
    assert training.settings == "training: {num_train_epochs: 7}"


def test_words_hold_the_figures_of_these_data():
    (advice,) = advise(replace(PLAIN, imbalance_ratio=69.3, smallest_rows=41))
    assert "the rarest class, 'rare', has 41 training rows" in advice.text


def config_with(path, settings):
    """The Config of a minimal YAML file with these lines at its end."""
    path.write_text("model: {name: m}\ndata: {source: rows.csv}\n", encoding="utf-8")
    extra = path.with_name("extra.yaml")
    extra.write_text(settings, encoding="utf-8")
    values = read_yaml(str(path)).values
    for section, content in read_yaml(str(extra)).values.items():
        values[section] = {**values.get(section, {}), **content}
    return check_config(YamlSource("advice", values))


@pytest.mark.parametrize(
    "rule",
    [rule for rule in RULES if rule.settings(replace(PLAIN, **REACHED_BY[rule.name]))],
    ids=lambda rule: rule.name,
)
def test_settings_of_every_rule_are_a_config_that_loads(rule, tmp_path):
    settings = rule.advice(replace(PLAIN, **REACHED_BY[rule.name])).settings
    config = config_with(tmp_path / "config.yaml", settings).to_dict()
    for line in settings.splitlines():
        section, keys = re.fullmatch(r"(\w+): \{(.*)\}", line).groups()
        for key in re.findall(r"(\w+): ", keys):
            assert config[section][key] is not None


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_settings_named_in_the_words_load_too(rule, tmp_path):
    facts = replace(PLAIN, **REACHED_BY[rule.name])
    for section, key, value in re.findall(
        r"\b(model|data|balance|loss|augment)\.(\w+)(?:: (\w+))?", rule.words(facts)
    ):
        needed = {"model.max_length": "8", "data.group_column": "author", "data.encoding": "cp1252"}
        assert config_with(
            tmp_path / "config.yaml", f"{section}: {{{key}: {value or needed[f'{section}.{key}']}}}"
        )


def test_advice_is_what_the_benchmarks_measured_best_or_cheapest():
    """Logit adjustment helped least, and undersampling was reliably worse on heads and emotion."""
    settings = " ".join(
        rule.settings(replace(PLAIN, **REACHED_BY[rule.name]))
        for rule in RULES
        if rule.kind == "method"
    )
    assert "logit_adjusted" not in settings
    assert "undersample" not in settings
    (advice,) = advise(replace(PLAIN, imbalance_ratio=13, smallest_rows=1_144))
    assert advice.settings == "decision: {thresholds: f1}"
    assert "Measured: +0.034 over 0.737 on rows with ratio 13" in advice.text


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES if rule.measured], ids=lambda rule: rule.name
)
def test_measured_figures_stand_in_the_documentation(rule):
    root = Path(__file__).parents[2]
    pages = (root / "docs/explanation/benchmarks.md", root / "scripts/bench/README.md")
    text = " ".join(page.read_text(encoding="utf-8") for page in pages)
    numbers = [float(n) for n in re.findall(r"(?<![\d.])\+?(0\.\d+)", text)]
    for figure in re.findall(r"0\.\d+", rule.measured):
        digits = len(figure) - 2
        assert any(abs(float(figure) - n) <= 0.51 * 10**-digits for n in numbers), figure


def test_every_compared_strategy_is_known():
    for values in REACHED_BY.values():
        for advice in advise(replace(PLAIN, **values)):
            for name in advice.compared[1:-1].split(","):
                assert name in PRESETS


@pytest.mark.parametrize(
    ("max_length", "limit", "needed", "settings", "words"),
    [
        (
            128,
            512,
            300,
            "model: {max_length: 320}",
            (
                "are truncated at 128 tokens; 99 % of the rows have at most 300 tokens. The "
                "model reads up to 512: set"
            ),
        ),
        (
            128,
            512,
            4_000,
            "model: {max_length: 512}",
            "The model reads up to 512: set model.max_length: 512.",
        ),
        (
            128,
            514,
            4_000,
            "model: {max_length: 514}",
            "The model reads up to 514: set model.max_length: 514.",
        ),
        (
            512,
            512,
            4_000,
            "",
            (
                "truncated at 512 tokens, the most that this model reads; 99 % of the rows "
                "have at most 4,000 tokens. Choose a model with a longer context"
            ),
        ),
        (
            512,
            8_192,
            900,
            "model: {max_length: 960}",
            "The model reads up to 8,192: set model.max_length: 960.",
        ),
        (
            512,
            None,
            900,
            "model: {max_length: 960}",
            "The model has no limit: set model.max_length: 960.",
        ),
        (
            512,
            None,
            None,
            "model: {max_length: 1024}",
            (
                "10.0% of the rows are truncated at 512 tokens. The model has no limit: set "
                "model.max_length: 1024."
            ),
        ),
        (500, 512, None, "model: {max_length: 512}", "set model.max_length: 512."),
    ],
)
def test_advice_for_cut_rows_is_longer_than_now_and_as_long_as_the_model_reads(
    max_length, limit, needed, settings, words
):
    facts = replace(
        PLAIN,
        truncated_ratio=0.1,
        max_length=max_length,
        position_limit=limit,
        needed_tokens=needed,
    )
    advice = advise(facts)[0]
    assert advice.rule == "truncation"
    assert advice.settings == settings
    assert words in advice.text

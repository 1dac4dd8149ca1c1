"""The audit of rows with several labels: pairs, splits, doubtful labels and odd inputs."""

import json
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
from page_parser import Page
from test_audit import audit

from trainer.audit.advice import advise
from trainer.audit.facts import Advice, Facts
from trainer.audit.label_set_rules import LABEL_SET_RULES
from trainer.audit.label_sets import describe_label_sets
from trainer.audit.noise.label_set_noise import find_label_set_noise
from trainer.comparison.strategies import refuse
from trainer.config.config import load_config

NAMES = ["a", "b", "c"]


def rows_of(label_sets, text="row"):
    return [{"text": f"{text} {n} of {n * n}", "label": own} for n, own in enumerate(label_sets)]


def written(tmp_path, records, **options):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    audit(data=str(path), output=tmp_path / "page", **options)
    text = (tmp_path / "page/audit.html").read_text(encoding="utf-8")
    found = json.loads((tmp_path / "page/audit.json").read_text(encoding="utf-8"))
    return found, " ".join("".join(Page(text).words).split())


def test_pairs_say_what_balancing_one_label_does_to_another():
    sets = [("a",)] * 60 + [("a", "b")] * 40 + [("b",)] * 10 + [("c",)] * 5 + [()] * 5
    matrix = np.array([[name in own for name in NAMES] for own in sets])
    found = describe_label_sets(matrix, NAMES)
    assert (found["mean"], found["several"], found["none"]) == (155 / 120, 40 / 120, 5 / 120)
    assert found["sizes"] == {"0": 5, "1": 75, "2": 40}
    (pair,) = found["pairs"]
    assert pair == {
        "rarer": "b",
        "other": "a",
        "rows": 40,
        "share_of_rarer": 0.8,
        "share_of_other": 0.4,
        "other_times": 1.8,  # (100 + 2 x 40) / 100
    }
    assert found["tied"] == [pair]
    assert found["matrix"] == {"labels": ["a", "b"], "shares": [[1, 0.4], [0.8, 1]]}


def test_audit_tells_pairs_splits_lengths_and_conflicts_of_label_sets(tmp_path, capsys):
    sets = [[["x", "y"], ["x"], ["z"], []][n % 4] for n in range(80)]
    twice = [{"text": "said twice", "label": own} for own in (["x"], ["x", "y"])]
    copies = [{"text": "a copy", "label": ["y", "x"]}] * 2
    found, words = written(tmp_path, [*rows_of(sets), *twice, *copies])
    assert found["classes"]["rows"]["all"] == 81
    assert found["classes"]["counts"]["all"] == {"x": 41, "y": 21, "z": 20}
    assert found["cleaning"]["conflicts"][0]["labels"] == {"x": 1, "x, y": 1}
    assert found["cleaning"]["duplicates"] == [{"text": "a copy", "label": "x, y", "copies": 2}]
    splits = found["splits"]
    assert [splits[name]["labels"] for name in ("train", "validation")] == [3, 3]
    assert max(split["mean_off"] for split in splits.values()) < 1
    assert found["lengths"]["characters"]["x"]["rows"] == 41
    assert re.search(r"A row has 1\.0\d labels in the mean", words)
    assert "Where balancing one label moves another" in words
    out = capsys.readouterr().out
    assert "Rows by label: imbalance ratio" in out
    assert re.search(r"1\.0\d in the mean; 2\d\.\d% of the rows have two or more, 2\d\.\d% ", out)
    assert "have none. Pairs of labels that occur together: 1." in " ".join(out.split())
    assert "Splits: mean difference from an even division of a label: train" in out


def test_wrong_and_missing_labels_are_found():
    generator = np.random.default_rng(0)
    truth_NC = generator.random((600, 3)) < [0.5, 0.3, 0.2]
    features_NF = truth_NC @ generator.normal(size=(3, 8)) * 3 + generator.normal(size=(600, 8))
    given_NC = truth_NC.copy()
    changed = generator.choice(600, 30, replace=False)
    given_NC[changed, changed % 3] ^= True
    noise = find_label_set_noise(features_NF, given_NC, np.arange(600), seed=1)
    is_right = np.isin(noise.positions_I, changed)
    assert is_right.mean() >= 0.7
    assert is_right.sum() >= 18
    own = changed[np.isin(changed, noise.positions_I)]
    places = [noise.positions_I.tolist().index(row) for row in own]
    assert noise.doubtful_IK[places, own % 3].mean() >= 0.9
    assert noise.left_out_ids == []
    rare_NC = np.c_[given_NC, np.arange(600) < 9]
    assert find_label_set_noise(features_NF, rare_NC, np.arange(600), seed=1).left_out_ids == [3]
    assert find_label_set_noise(features_NF, rare_NC[:, 3:], np.arange(600), seed=1) is None


ODD = {
    "everywhere": ([["x"], ["x", "y"]] * 30, "Every row has the label x, so nothing can be learnt"),
    "once": ([["x"], ["y"]] * 30 + [["once", "x"]], "No row in validation: once."),
    "identical": ([["x", "y"], ["z"]] * 30, "no model can tell them apart: 'x' and 'y'."),
    "two": ([["x"], ["y"], []] * 20, "No two labels occur together."),
    "names": ([["a, b", 'say "hi"'], ["plain"]] * 30, '"a, b", "say \\"hi\\""'),
    "few": ([["x"], ["y"]] * 4, "no label has enough independent rows"),
}


@pytest.mark.filterwarnings("ignore:(every row|split|data.label)")
@pytest.mark.parametrize("name", ODD)
def test_odd_labels_are_told_on_the_page(name, tmp_path, capsys):
    label_sets, words = ODD[name]
    records = rows_of(label_sets)
    if name == "names":
        records += [{"text": "twin", "label": ["a, b", 'say "hi"']}] * 2
    found, page_words = written(tmp_path, records)
    assert words in page_words
    assert "nan" not in page_words.lower()
    assert found["format"] == "equipoise audit 1"


def test_rows_that_all_lack_a_label_are_refused_in_words(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        written(tmp_path, rows_of([[]] * 20))
    assert stopped.value.code == 2
    assert "the rows hold no class; a classifier needs two" in capsys.readouterr().err


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:split")
def test_five_thousand_labels_fit_a_small_page(tmp_path, capsys):
    label_sets = [[f"label {n % 5000:04}", f"label {(n * 7) % 5000:04}"] for n in range(10_000)]
    found, words = written(tmp_path, rows_of(label_sets), max_rows=500)
    assert len(found["classes"]["counts"]["all"]) == 5_000
    assert "300 of 5,000 classes, the 150 largest and the 150 rarest" in words
    assert (tmp_path / "page/audit.html").stat().st_size < 600_000
    assert "label 4999" in words


@pytest.mark.parametrize(
    ("facts", "rule"),
    [
        ({"imbalance_ratio": 3.0, "smallest_share": 0.1}, "frequent_labels"),
        ({"imbalance_ratio": 3.0, "smallest_share": 0.09}, "rare_labels"),
        ({"imbalance_ratio": 10.1, "num_classes": 20}, "long_tail_of_labels"),
        ({"imbalance_ratio": 10.1, "num_classes": 19}, "rare_labels"),
        ({"imbalance_ratio": 10.0, "num_classes": 20}, "rare_labels"),
    ],
)
def test_method_for_several_labels_follows_its_thresholds(facts, rule):
    plain = Facts(2.0, "rare", 3, 500, 800, is_multi_label=True)
    advice = advise(replace(plain, **facts))[-1]
    assert advice.rule == rule
    assert advice.text.endswith(".")
    assert advice.source
    assert rule in {each.name for each in LABEL_SET_RULES}


def test_next_commands_of_the_audit_load_the_config_that_they_name(tmp_path, capsys, tiny_model):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(map(json.dumps, rows_of([["x"]] * 50 + [["y", "x"]] * 10))))
    config = tmp_path / "my topics.yaml"
    values = {
        "run": {"name": "topics", "output_dir": str(tmp_path)},
        "model": {"name": str(tiny_model), "max_length": 16},
        "data": {"source": str(rows)},
    }
    config.write_text(json.dumps(values), encoding="utf-8")
    audit(config=str(config))
    found = json.loads((tmp_path / "topics-audit/audit.json").read_text(encoding="utf-8"))
    assert found["lengths"]["tokens"]["by_class"]["x"]["rows"] == 60
    (command,) = found["next_commands"]
    assert shlex.split(command)[:3] == ["equipoise", "compare", str(config)]
    path, *overrides = shlex.split(command)[2:]
    loaded = load_config(path, [word for word in overrides if word != "--set"])
    assert loaded.compare.strategies == [
        "none",
        "thresholds",
        "class_weights",
        "oversample",
        "asymmetric",
    ]
    refuse(loaded, multi_label=True)
    assert f"  {command}" in capsys.readouterr().out


@pytest.mark.parametrize("rule", [rule.name for rule in LABEL_SET_RULES])
def test_strategies_that_the_advice_compares_fit_several_labels(rule, tmp_path):
    advice = Advice(rule, "method", "", "", "", "")
    values = {"model": {"name": "nowhere"}, "data": {"source": "nowhere.csv"}}
    config = load_config(values, [f"compare.strategies={advice.compared}"])
    refuse(config, multi_label=True)
    assert {"asymmetric", "distribution_balanced"} <= {*config.compare.strategies} or (
        rule != "long_tail_of_labels"
    )

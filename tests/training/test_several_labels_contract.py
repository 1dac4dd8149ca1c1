"""Every loss, row method, mode and decision of data with several labels a row, combined.

What is allowed trains two steps and gives a model that loads and predicts; what is refused says
why, and what to use.
"""

import itertools
import json
import random
import re
from typing import get_args

import pytest
from small_runs import train

from trainer import Classifier
from trainer.config.config import check_config
from trainer.config.sections.balancing import LossName, RowMethod, SynthesisMethod
from trainer.config.yaml_source import YamlSource
from trainer.data.balancing.balance import METHODS
from trainer.errors import ConfigError
from trainer.evaluation.decisions.label_thresholds import LABEL_OBJECTIVES
from trainer.training.losses.several_labels import MULTI_LABEL_LOSSES

LABELS = ["heat", "jam", "rain"]
LOSSES = list(MULTI_LABEL_LOSSES)
MODES = ["full", "lora", "head"]
DECISIONS = {
    "none": {},
    **{name: {"thresholds": name, "at_least_one": True} for name in LABEL_OBJECTIVES},
    "cost": {"thresholds": "cost", "costs": {"jam": {"missed": 5}}, "at_most": 2},
    "temperature": {"temperature": True, "at_least_one": True, "at_most": 1},
    "prior": {"prior": "natural"},
}
DAILY = [
    ("ntr_focal", "floor", "lora", "micro_f1"),
    ("distribution_balanced", "class_balanced_batches", "full", "cost"),
    ("focal", "oversample", "head", "f1"),
]


def is_allowed(loss, method, mode, decision):
    has_steps = mode != "head" or method != "class_balanced_batches"
    return has_steps and (decision != "prior" or loss == "cross_entropy")


def pairs(combination):
    """The pairs of (place, entry) of a combination."""
    return set(itertools.combinations(enumerate(combination), 2))


def covering(tables):
    """Few combinations that hold every allowed pair of entries of two tables."""
    combinations = [each for each in itertools.product(*tables) if is_allowed(*each)]
    left = set().union(*map(pairs, combinations))
    found = []
    while left:
        found.append(max(combinations, key=lambda each: len(pairs(each) & left)))
        left -= pairs(found[-1])
    return found


EVERY_PAIR = covering([LOSSES, METHODS, MODES, DECISIONS])


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """JSONL of 120 texts with none to three of LABELS."""
    draw = random.Random(0)
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(120):
            shares = zip(LABELS, (0.4, 0.2, 0.6), strict=True)
            labels = [label for label, share in shares if draw.random() < share]
            text = f"{' and '.join(labels) or 'nothing'} on day {number}"
            file.write(json.dumps({"text": text, "labels": labels}) + "\n")
    return path


def values_of(loss, method, mode, decision, source="rows.jsonl", model="some/model"):
    return {
        "model": {"name": str(model), "max_length": 12, "mode": mode},
        "data": {"source": str(source), "label_column": "labels"},
        "balance": {"method": method},
        "loss": {"name": loss},
        "decision": decision,
        "training": {"max_steps": 2, "per_device_train_batch_size": 8, "bf16": False},
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("loss", "method", "mode", "decision"),
    [*DAILY, *(pytest.param(*each, marks=pytest.mark.exhaustive) for each in EVERY_PAIR)],
)
def test_what_is_allowed_trains_and_gives_a_model_that_predicts(
    loss, method, mode, decision, rows, tiny_model, tmp_path
):
    values = values_of(loss, method, mode, DECISIONS[decision], rows, tiny_model)
    values |= {"run": {"name": "run", "output_dir": str(tmp_path)}}
    (tmp_path / "run.yaml").write_text(json.dumps(values), encoding="utf-8")
    folder = train(tmp_path / "run.yaml")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert ("decision" in metrics) == (decision != "none")
    answers = Classifier.load(folder).predict(["rain and heat on day 3", "nothing on day 4"])
    assert all(set(answer.labels) <= set(LABELS) for answer in answers)
    if DECISIONS[decision].get("at_least_one"):
        assert all(answer.labels for answer in answers)
    most = DECISIONS[decision].get("at_most", 3)
    assert all(len(answer.labels) <= most for answer in answers)


REFUSED = {
    ("loss", "logit_adjusted"): r"loss.name is 'logit_adjusted'; with multi-label data known:",
    ("loss", "balanced_softmax"): r"loss.name is 'balanced_softmax'; with multi-label data known:",
    **{
        ("method", name): r"no label set of its own. Set oversample, floor or power, or loss.class"
        for name in get_args(SynthesisMethod)
    },
    ("decision", "uniform"): r"Set decision.prior: natural",
    ("decision", "pairs of classes"): r"needed: \{label: \{missed: cost, wrong: cost\}\}",
}
TABLES = {
    "loss": [*LOSSES, *(name for name in get_args(LossName) if name not in LOSSES)],
    "method": [*get_args(RowMethod), *get_args(SynthesisMethod)],
    "decision": {
        **DECISIONS,
        "uniform": {"prior": "uniform"},
        "pairs of classes": {"thresholds": "cost", "costs": {"jam": {"rain": 2}}},
    },
}


def combinations():
    """(loss, method, decision) of all pairs; what is not in the pair has its default."""
    plain = {"loss": "cross_entropy", "method": "none", "decision": "none"}
    found = set()
    for first, second in itertools.combinations(TABLES, 2):
        for one, other in itertools.product(TABLES[first], TABLES[second]):
            found.add(tuple((plain | {first: one, second: other}).values()))
    return sorted(found)


def test_every_pair_is_allowed_or_refused_with_a_remedy():
    for loss, method, decision in combinations():
        chosen = {"loss": loss, "method": method, "decision": decision}
        words = [REFUSED[pair] for pair in chosen.items() if pair in REFUSED]
        if decision == "prior" and loss != "cross_entropy":
            words.append(r"Remove it, or set loss.name: cross_entropy")
        values = values_of(loss, method, "head", TABLES["decision"][decision])
        if method == "class_balanced_batches":
            values["model"]["mode"] = "full"  # a head has no steps
        found = refusal(values)
        assert bool(found) == bool(words), (chosen, found)
        assert len(found) <= 600, chosen
        if (loss, decision) == ("focal", "uniform"):
            words = [r"Remove it, or set loss.name: cross_entropy"]  # refused for any data
        for each in words:
            assert re.search(each, found), (chosen, found)


def refusal(values):
    """What a user reads of these values with several labels a row; empty if they are allowed."""
    try:
        check_config(YamlSource("test", values)).check_problem_type(multi_label=True)
    except ConfigError as error:
        return " ".join(str(error).split())
    return ""

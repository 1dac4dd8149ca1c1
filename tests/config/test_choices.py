"""The choices that the config allows are the entries of the tables that implement them."""

from typing import Literal, get_args, get_origin

import pytest

from trainer.comparison.statistics import differences
from trainer.config.sections.augment import AugmentSection
from trainer.config.sections.balancing import (
    LOSS_SETTINGS,
    PARAMETERS,
    BalanceSection,
    DecisionSection,
    EnsembleSection,
    LossSection,
)
from trainer.config.sections.compare import PRESETS, CompareSection
from trainer.config.sections.tracker_names import TRACKERS
from trainer.config.sections.training import METRICS, MULTI_LABEL_METRICS, TrainingSection
from trainer.data.augmenting.generators import GENERATORS
from trainer.data.balancing.balance import METHODS
from trainer.data.balancing.weights import WEIGHTINGS
from trainer.evaluation.decisions.label_thresholds import LABEL_OBJECTIVES
from trainer.evaluation.decisions.thresholds import THRESHOLDS
from trainer.evaluation.decisions.vote import COMBINERS
from trainer.training.batches.batching import SAMPLERS
from trainer.training.frozen.synthesis import SYNTHESISERS
from trainer.training.losses.one_label import LOSSES
from trainer.training.losses.several_labels import MULTI_LABEL_LOSSES


def choices(annotation):
    """Return every value of the `Literal`s in an annotation, sorted."""
    if get_origin(annotation) is Literal:
        return sorted(get_args(annotation))
    return sorted(choice for part in get_args(annotation) for choice in choices(part))


@pytest.mark.parametrize(
    ("section", "key", "names"),
    [
        (AugmentSection, "generator", ["none", *GENERATORS]),
        (BalanceSection, "method", [*METHODS, *SYNTHESISERS]),
        (CompareSection, "metric", {*differences.METRICS, *differences.LABEL_SET_METRICS}),
        (CompareSection, "strategies", PRESETS),
        (DecisionSection, "thresholds", {*THRESHOLDS, *LABEL_OBJECTIVES, "cost"}),
        (EnsembleSection, "combine", COMBINERS),
        (LossSection, "class_weights", WEIGHTINGS),
        (LossSection, "name", {*LOSSES, *MULTI_LABEL_LOSSES}),
        (TrainingSection, "report_to", ["none", "all", *TRACKERS, *TRACKERS]),
        (TrainingSection, "metric_for_best_model", {*METRICS, *MULTI_LABEL_METRICS}),
        (TrainingSection, "train_sampling_strategy", SAMPLERS),
    ],
    ids=lambda value: getattr(value, "__name__", value if isinstance(value, str) else ""),
)
def test_choices_of_a_key_are_the_entries_of_its_table(section, key, names):
    assert choices(section.model_fields[key].annotation) == sorted(names)


def test_parameters_belong_to_methods_and_losses_that_exist():
    assert set(PARAMETERS) < set(METHODS)
    users = {name for names in LOSS_SETTINGS.values() for name in names}
    assert users < {*LOSSES, *MULTI_LABEL_LOSSES}
    assert {parameter.key for parameter in PARAMETERS.values()} < set(BalanceSection.model_fields)
    assert set(LOSS_SETTINGS) < set(LossSection.model_fields)

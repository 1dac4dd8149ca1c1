"""What a search concludes, from predictions of both configs for held-out rows."""

from types import SimpleNamespace

import numpy as np
import pytest

from trainer.comparison.statistics.differences import SeedPredictions, compare
from trainer.tuning.result import BEST, DEFAULT, conclude

LABELS = ["a", "b"]
TRUE_N = np.arange(400) % 2
ROWS = np.random.default_rng(0).permutation(400)


def predictions(*, wrong):
    """Predictions with so many wrong rows."""
    predicted_N = TRUE_N.copy()
    predicted_N[ROWS[:wrong]] ^= 1
    return SeedPredictions(predicted_N[None], [np.eye(2)[predicted_N] * 0.8 + 0.1])


@pytest.mark.parametrize(
    ("wrong", "verdict"),
    [
        (20, "The gain is reliable for these two trainings; other seeds may differ."),
        (101, "These rows cannot tell the two apart: keep your config, or search with more rows."),
        (180, "The loss is reliable for these two trainings: keep your config."),
    ],
)
def test_a_config_is_kept_unless_the_gain_is_reliable(wrong, verdict):
    compared = compare(
        TRUE_N,
        {DEFAULT: predictions(wrong=100), BEST: predictions(wrong=wrong)},
        LABELS,
        minority_label="b",
        metric="macro_f1",
        baseline=DEFAULT,
    )
    words = conclude(compared, SimpleNamespace(number=3))
    assert words.startswith("Trial 3 has macro F1 0."), words
    assert words.endswith(verdict)

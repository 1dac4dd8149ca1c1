import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from trainer.data.balancing.weights import WEIGHTINGS, class_weights
from trainer.errors import ConfigError


@pytest.mark.parametrize("counts", [[6, 2], [100, 10, 1], [3, 3, 3], [1, 17, 400, 5]])
def test_balanced_weights_equal_those_of_scikit_learn(counts):
    label_ids = np.repeat(np.arange(len(counts)), counts)
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=label_ids)
    np.testing.assert_allclose(
        class_weights(np.array(counts), "balanced", [str(c) for c in range(len(counts))]), expected
    )


@pytest.mark.parametrize(
    "weighting", [*sorted(WEIGHTINGS), {"a": 5.0}, {"a": 2.0, "b": 1e-3, "c": 7.0}, {}], ids=str
)
@pytest.mark.parametrize("counts", [[100, 10, 1], [3, 3, 3], [10_000_000, 5, 1]])
def test_weights_average_to_one_over_the_rows_drawn_or_over_the_classes(weighting, counts):
    weights = class_weights(np.array(counts), weighting, ["a", "b", "c"])
    assert (weights * counts).sum() / sum(counts) == pytest.approx(1)
    by_class = class_weights(np.array(counts), weighting, ["a", "b", "c"], mean_over="classes")
    assert by_class.mean() == pytest.approx(1)
    np.testing.assert_allclose(by_class / by_class[0], weights / weights[0])


def test_weights_by_hand():
    # rows 6 and 2: balanced 8 / (2 * 6) and 8 / (2 * 2)
    assert class_weights(np.array([6, 2]), "balanced", ["a", "b"]).tolist() == pytest.approx(
        [2 / 3, 2]
    )
    # weight 3 for b, 1 for a: mean (6 * 1 + 2 * 3) / 8 = 1.5, so 1 / 1.5 and 3 / 1.5
    assert class_weights(np.array([6, 2]), {"b": 3.0}, ["a", "b"]).tolist() == pytest.approx(
        [2 / 3, 2]
    )
    assert class_weights(np.array([6, 2]), "none", ["a", "b"]).tolist() == [1, 1]
    # 9 and 1 rows: square roots 1 and 3 of 1/9 and 1, mean (9 * 1 + 1 * 3) / 10 = 1.2
    assert class_weights(np.array([9, 1]), "sqrt", ["a", "b"]).tolist() == pytest.approx(
        [1 / 1.2, 3 / 1.2]
    )
    # beta 0.5: 0.5 / (1 - 0.25) = 2/3 for two rows, 0.5 / 0.5 = 1 for one; mean over classes 5/6
    found = class_weights(
        np.array([2, 1]), "effective_number", ["a", "b"], beta=0.5, mean_over="classes"
    )
    assert found.tolist() == pytest.approx([0.8, 1.2])


def test_effective_number_tends_to_balanced_and_to_none():
    counts, names = np.array([500, 50, 5]), ["a", "b", "c"]
    np.testing.assert_allclose(
        class_weights(counts, "effective_number", names, beta=1 - 1e-9),
        class_weights(counts, "balanced", names),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        class_weights(counts, "effective_number", names, beta=1e-9), np.ones(3), rtol=1e-5
    )


def test_weight_for_an_unknown_label_is_refused():
    with pytest.raises(
        ConfigError, match=r"^loss.class_weights names c, d; labels in the data: a, b.$"
    ):
        class_weights(np.array([1, 1]), {"a": 1.0, "d": 2.0, "c": 2.0}, ["a", "b"])

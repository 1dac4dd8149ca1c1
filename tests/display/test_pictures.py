import numpy as np
import pytest

from trainer.data.summary import DataSummary
from trainer.display.curves import learning_curves
from trainer.display.plots import (
    class_counts,
    class_distribution,
    class_lengths,
    confusion,
    label_scores,
    results,
)
from trainer.evaluation.confusion import Confusion
from trainer.evaluation.metrics import evaluate_logits
from trainer.evaluation.multi_label import evaluate_multi_label

AUDIT = DataSummary(
    ["a", "b"],
    {"train": np.array([30, 10]), "validation": np.array([6, 2]), "drawn": np.array([10, 10])},
    np.array([30, 10]),
)


def bar_widths(axis):
    return sorted(int(patch.get_width()) for patch in axis.patches)


def test_class_distribution_shows_before_and_after_and_each_other_split():
    first, second = class_distribution(AUDIT).axes
    assert bar_widths(first) == [10, 10, 10, 30]
    assert bar_widths(second) == [2, 6]
    assert first.get_title(loc="left") == "train (imbalance ratio 3, mild)"


def test_learning_curves_mark_the_saved_model():
    rows = [
        {
            "training_loss": 1,
            "epoch": e,
            "step": e * 5,
            "validation_loss": 1,
            "accuracy": 0.5,
            "macro_f1": e / 10,
            "minority_recall": 0,
        }
        for e in (1, 2)
    ]
    right = learning_curves(rows, 10).axes[1]
    marked = next(line for line in right.lines if line.get_label() == "saved model")
    assert marked.get_xydata().tolist() == [[2, 0.2]]


def test_confusion_writes_rows_and_shades_shares_of_the_true_class():
    axis = confusion([[3, 1], [0, 2]], ["a", "b"], "test").axes[0]
    assert sorted(text.get_text() for text in axis.texts) == ["0", "1", "2", "3"]
    assert np.allclose(axis.images[0].get_array(), [[0.75, 0.25], [0, 1]])


def test_label_scores_show_f1_and_average_precision_of_each_label_most_rows_first():
    true = np.array([[True, True], [False, True], [True, False], [False, True]])
    logits = np.where(true, 1.0, -1.0)
    logits[
        2, 0
    ] = -1.0  # one of the two rows of a is missed: F1 2/3, average precision 1/2 + 1/2 * 2/4
    axis = label_scores(evaluate_multi_label(logits, true, ["a", "b"]), "test").axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["b (3)", "a (2)"]
    assert [round(patch.get_width(), 3) for patch in axis.patches] == [1, 0.667, 1, 0.75]


def test_picture_of_the_results_fits_the_kind_of_data():
    logits = np.array([[2.0, -2.0], [-2.0, 2.0]])
    assert (
        results(evaluate_logits(logits, np.array([0, 1]), ["a", "b"]), "test")[0]
        == "confusion_matrix.png"
    )
    assert (
        results(evaluate_multi_label(logits, logits > 0, ["a", "b"]), "test")[0]
        == "label_scores.png"
    )


def pictures_of(num_classes):
    labels = [f"a long name of class {c}" for c in range(num_classes)]
    counts_C = np.arange(num_classes) + 1
    true_N = np.repeat(np.arange(num_classes), 2)
    counts = dict(zip(labels, counts_C.tolist(), strict=True))
    matrix = Confusion.count(
        true_N, (true_N + (true_N % 3 == 0)) % num_classes, num_classes
    ).plain()
    held_NC = np.eye(num_classes, dtype=bool)
    yield class_distribution(
        DataSummary(
            labels, {"train": counts_C, "validation": counts_C, "drawn": counts_C}, counts_C
        )
    )
    yield confusion(matrix, labels, "test")
    yield label_scores(evaluate_multi_label(np.where(held_NC, 1.0, -1.0), held_NC, labels), "test")
    yield class_counts(counts, "train")
    yield class_lengths(
        {label: {"rows": n, "p5": 1, "median": 2, "p95": 3} for label, n in counts.items()},
        "tokens",
    )


@pytest.mark.parametrize("num_classes", [41, 1500])
def test_pictures_of_many_classes_show_40_and_say_which(num_classes):
    for figure in pictures_of(num_classes):
        width, height = figure.get_size_inches() * 150
        assert max(width, height) < 3000
        assert f"40 of {num_classes:,} classes, " in figure.axes[0].get_title(loc="left")
        assert len(figure.axes[0].get_yticklabels()) == 40


def test_confusion_of_many_classes_shows_the_worst_and_what_else_their_rows_were_taken_for():
    true_N = np.repeat(np.arange(50), 2)
    predicted_N = np.where(
        true_N < 3, 49, true_N
    )  # three classes are never right, and so the last is the next worst
    axis = confusion(
        Confusion.count(true_N, predicted_N, 50).plain(), [f"c{c}" for c in range(50)], "test"
    ).axes[0]
    shown = [tick.get_text() for tick in axis.get_yticklabels()]
    assert shown[:3] == ["c0", "c1", "c2"]
    assert shown[-1] == "c49"
    assert axis.get_xticklabels()[-1].get_text() == "all others"
    shares = np.asarray(axis.images[0].get_array())
    assert shares.shape == (40, 41)
    assert shares[0, 39] == 1  # of class 0 all rows were taken for c49
    np.testing.assert_allclose(shares.sum(axis=1), 1)

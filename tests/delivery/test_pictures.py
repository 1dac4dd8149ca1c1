import numpy as np

from trainer.data.audit import Audit
from trainer.delivery.plots import class_distribution, confusion, label_scores, learning_curves, results
from trainer.evaluation.metrics import evaluate_logits
from trainer.evaluation.multi_label import evaluate_multi_label

AUDIT = Audit(["a", "b"], {"train": np.array([30, 10]), "validation": np.array([6, 2]), "drawn": np.array([10, 10])}, np.array([30, 10]))


def bar_widths(axis):
    return sorted(int(patch.get_width()) for patch in axis.patches)


def test_class_distribution_shows_before_and_after_and_each_other_split():
    first, second = class_distribution(AUDIT).axes
    assert bar_widths(first) == [10, 10, 10, 30]
    assert bar_widths(second) == [2, 6]
    assert first.get_title(loc="left") == "train (imbalance ratio 3, mild)"


def test_learning_curves_mark_the_saved_model():
    rows = [{"training_loss": 1, "epoch": e, "step": e * 5, "validation_loss": 1, "accuracy": 0.5, "macro_f1": e / 10, "minority_recall": 0} for e in (1, 2)]
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
    logits[2, 0] = -1.0  # one of the two rows of a is missed: F1 2/3, average precision 1/2 + 1/2 * 2/4
    axis = label_scores(evaluate_multi_label(logits, true, ["a", "b"]), "test").axes[0]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["b (3)", "a (2)"]
    assert [round(patch.get_width(), 3) for patch in axis.patches] == [1, 0.667, 1, 0.75]


def test_picture_of_the_results_fits_the_kind_of_data():
    logits = np.array([[2.0, -2.0], [-2.0, 2.0]])
    assert results(evaluate_logits(logits, np.array([0, 1]), ["a", "b"]), "test")[0] == "confusion_matrix.png"
    assert results(evaluate_multi_label(logits, logits > 0, ["a", "b"]), "test")[0] == "label_scores.png"

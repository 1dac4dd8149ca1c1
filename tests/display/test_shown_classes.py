"""Which of many classes are shown, and that the words say so."""

from itertools import pairwise

import numpy as np
import pytest

from trainer.display import curves, plots
from trainer.display.shown_classes import worst_and_predicted, worst_and_rarest
from trainer.evaluation.confusion import Confusion


def scored(f1, support):
    return {
        f"c{n:03}": {"f1": f, "support": s}
        for n, (f, s) in enumerate(zip(f1, support, strict=True))
    }


def test_classes_that_most_rows_are_taken_for_are_among_those_shown():
    true_N = np.repeat(np.arange(100), 4)
    predicted_N = np.where(
        np.arange(400) % 4 == 0, true_N, 99
    )  # class 99 takes three of four rows, and has the best F1
    found = Confusion.count(true_N, predicted_N, 100)
    labels = [f"c{n:03}" for n in range(100)]
    per_class = scored(found.f1_C + np.where(np.arange(100) == 99, 1, 0), found.support_C)
    predicted = dict(zip(labels, found.given_C.tolist(), strict=True))
    shown = worst_and_predicted(labels, per_class, predicted)
    assert "c099" in shown.labels
    words = (
        "40 of 100 classes, the 10 predicted most often and, of the others, the 30 with the"
        " lowest F1"
    )
    assert (len(shown.labels), shown.words) == (40, words)


def test_confusion_picture_shows_the_class_that_everything_is_taken_for():
    true_N = np.repeat(np.arange(60), 10)
    predicted_N = np.where(true_N < 30, 59, true_N)
    matrix = Confusion.count(true_N, predicted_N, 60).plain()
    figure = plots.confusion(matrix, [f"c{n:02}" for n in range(60)], "test")
    axis = figure.axes[0]
    assert "c59" in [text.get_text() for text in axis.get_xticklabels()]
    assert (
        "the 10 predicted most often and, of the others, the 30 with the lowest F1"
        in axis.get_title(loc="left")
    )


@pytest.mark.parametrize(
    ("support", "words"),
    [
        (
            [*range(1, 91)],
            "60 of 90 classes, the 30 with the lowest F1 and, of the others, the 30 with the"
            " fewest rows",
        ),
        ([*[5] * 30, *[0] * 60], "30 of 90 classes, those that have rows"),
        ([*[5] * 45, *[0] * 45], "45 of 90 classes, those that have rows"),
    ],
)
def test_words_hold_where_the_worst_classes_are_also_the_rarest(support, words):
    per_class = scored([s / 100 for s in support], support)
    shown = worst_and_rarest([*per_class], per_class, 60)
    assert shown.words == words
    assert len(set(shown.labels)) == len(shown.labels) == int(words.split()[0])


EPOCHS = {
    "part of one": np.linspace(0.05, 0.9, 18),
    "one evaluation": [0.3333],
    "three": [1, 2, 3],
    "halves": np.arange(0.5, 6.5, 0.5),
}


@pytest.mark.parametrize("kind", EPOCHS)
def test_labels_of_epochs_do_not_overlap(kind):
    columns = ("training_loss", "validation_loss", "accuracy", "macro_f1", "minority_recall")
    rows = [
        {"epoch": float(epoch), "step": n, **dict.fromkeys(columns, 0.5)}
        for n, epoch in enumerate(EPOCHS[kind])
    ]
    for figure in (
        curves.learning_curves(rows, None),
        curves.overlaid([rows], "macro_f1", "title"),
    ):
        figure.canvas.draw()
        for axis in figure.axes:
            low, high = axis.get_xlim()
            labels = [
                text
                for text in axis.get_xticklabels()
                if text.get_text() and low <= text.get_position()[0] <= high
            ]
            boxes = sorted(
                (text.get_window_extent().x0, text.get_window_extent().x1) for text in labels
            )
            assert labels
            assert all(left[1] + 4 < right[0] for left, right in pairwise(boxes)), [
                text.get_text() for text in labels
            ]

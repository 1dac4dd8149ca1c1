"""Whether a training ended too early: curves worked out by hand, and real trainings."""

import json
from dataclasses import replace

import pytest

from trainer.runs import run_result
from trainer.training.length import Curve, PlannedLength, training_length

PLANNED = PlannedLength(num_rows=3_000, num_classes=4, rows_per_step=32, epochs=4)


def length(scores, losses=None, *, step=100, planned=PLANNED, row_value=0.0, stopped_early=False):
    """The length of a training with these values of macro F1, and of the loss, by evaluation."""
    losses = losses or [0.5] * len(scores)
    log = [
        {
            "step": step * number,
            "eval_macro_f1": score,
            "eval_macro_recall": score + 0.1,
            "eval_loss": loss,
        }
        for number, (score, loss) in enumerate(zip(scores, losses, strict=True), start=1)
    ]
    return training_length(
        planned,
        log,
        metric="macro_f1",
        greater_is_better=True,
        learning_rate=5e-5,
        row_value=row_value,
        stopped_early=stopped_early,
    )


@pytest.mark.parametrize(
    ("scores", "ended_too_early"),
    [
        ([0.3, 0.5, 0.6, 0.611], True),
        ([0.3, 0.5, 0.6, 0.609], False),  # less than one point
        ([0.3, 0.6, 0.59, 0.619], False),  # less than twice the step back before: noise
        ([0.3, 0.6, 0.59, 0.621], True),
        ([0.6, 0.5, 0.55, 0.58], False),  # below the best
        ([0.5, 0.6, 0.628], True),  # three evaluations: 0.75 x 0.028 is above 2 x 0.01
        ([0.5, 0.6, 0.626], False),
        ([0.5, 0.55], True),  # two: half of 0.05
        ([0.5, 0.53], False),
        ([0.9, 0.95, 0.98, 1.0], False),  # nothing is left to learn
    ],
)
def test_score_that_rises_in_the_last_quarter_by_more_than_noise_ended_too_early(
    scores, ended_too_early
):
    found = length(scores)
    assert found.ended_too_early == ended_too_early
    assert bool(found.words) == ended_too_early


@pytest.mark.parametrize(
    ("losses", "ended_too_early"),
    [
        ([1.0, 0.8, 0.6, 0.56], True),
        ([1.0, 0.8, 0.6, 0.58], False),  # less than 5 %
        ([0.6, 0.5, 0.7, 0.8], False),
        ([1.0, 0.5, 0.7, 0.4], False),  # less than the step back
    ],
)
def test_loss_that_still_falls_ended_too_early(losses, ended_too_early):
    assert length([0.2] * 4, losses).ended_too_early == ended_too_early


def test_words_hold_the_figures_and_the_remedy():
    assert length([0.3, 0.5, 0.512, 0.561], [1.0, 0.9, 0.8, 0.7]).words == (
        "In the last quarter of 4 epochs, macro F1 rose from 0.512 to 0.561 and validation loss"
        " fell from 0.800 to 0.700. Train longer: `training.num_train_epochs: 8`, or raise"
        " `training.learning_rate` (now 5e-05)."
    )
    assert length([0.3, 0.5, 0.512, 0.561]).last_quarter == {
        "macro_f1": (0.512, 0.561),
        "loss": (0.5, 0.5),
    }
    steps = replace(PLANNED, max_steps=400)
    assert "last quarter of 400 steps" in length([0.3, 0.5, 0.51, 0.56], planned=steps).words
    assert "`training.max_steps: 800`" in length([0.3, 0.5, 0.51, 0.56], planned=steps).words


def test_gain_of_one_row_of_the_rarest_class_is_noise():
    assert length([0.3, 0.5, 0.6, 0.63], row_value=0.02).ended_too_early
    assert not length([0.3, 0.5, 0.6, 0.63], row_value=0.04).ended_too_early


def test_training_that_early_stopping_ended_was_long_enough():
    assert not length([0.3, 0.5, 0.6, 0.7], stopped_early=True).ended_too_early


@pytest.mark.parametrize(("rows", "ended_too_early"), [(3_000, True), (16_000, False)])
def test_one_evaluation_shows_no_curve_so_the_steps_decide(rows, ended_too_early):
    found = length([0.5], planned=replace(PLANNED, num_rows=rows, epochs=1))
    assert found.ended_too_early == ended_too_early
    assert found.last_quarter == {}
    if ended_too_early:
        assert found.words == (
            "Training has 94 optimizer steps, probably too few for 4 classes: a new head needs"
            " about 500, and one evaluation cannot show whether it still improves. Train longer:"
            " `training.num_train_epochs: 6`, or raise `training.learning_rate` (now 5e-05)."
        )


def test_quarter_of_evaluations_at_other_steps_is_interpolated():
    curve = Curve("macro_f1", [100, 200, 300, 400, 500], [0.1, 0.2, 0.4, 0.6, 0.7], rises=True)
    assert curve.ends == pytest.approx((0.55, 0.7))  # 375 lies at 3/4 between 300 and 400


@pytest.mark.parametrize(
    ("planned", "settings", "words"),
    [
        (PLANNED, {"num_train_epochs": 6}, "has 376 optimizer steps"),
        (replace(PLANNED, epochs=6), {}, ""),
        (replace(PLANNED, num_classes=100), {"num_train_epochs": 20}, "needs about 2,000"),
        (replace(PLANNED, max_steps=60), {"max_steps": 500}, "Set `training.max_steps: 500`"),
        (
            replace(PLANNED, num_rows=90, epochs=20),
            {},
            "More than 20 epochs of the same rows hardly help",
        ),
    ],
)
def test_too_few_steps_are_foreseen(planned, settings, words):
    assert planned.settings == settings
    assert words in planned.sentence
    assert bool(words) == bool(planned.sentence)


def test_steps_follow_batches_and_processes():
    training = {"per_device_train_batch_size": 8, "num_train_epochs": 2.5}
    assert PlannedLength.of(training, 100, 3).steps == 33  # 2.5 epochs of 13 steps
    training["gradient_accumulation_steps"] = 2
    assert PlannedLength.of(training, 100, 3, num_processes=2).steps == 10


@pytest.fixture
def separable(tmp_path):
    """Function (number of classes) -> file of 120 rows whose class is one word of the text."""

    def make(num_classes):
        words = ("river", "mountain", "winter", "king", "guitar", "bread")[:num_classes]
        path = tmp_path / "rows.csv"
        lines = [f"{word} {i} {i * 7},{word}" for i in range(120 // num_classes) for word in words]
        path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
        return str(path)

    return make


@pytest.mark.parametrize(
    ("mode", "rate", "num_classes", "words"),
    [
        ("full", 4e-4, 6, "In the last quarter of 4 epochs, "),
        ("full", 1e-3, 2, ""),
        pytest.param(
            *("lora", 3e-5, 2, "No evaluation was better than giving all rows the same answer"),
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_real_training_says_that_it_ended_too_early(
    mode, rate, num_classes, words, separable, tiny_model, tmp_path, capsys
):
    result = run_result.train(
        {
            "run": {"name": "run", "output_dir": str(tmp_path), "num_threads": 1},
            "model": {"name": str(tiny_model), "mode": mode, "max_length": 16},
            "data": {"source": separable(num_classes)},
            "training": {
                "num_train_epochs": 4,
                "learning_rate": rate,
                "per_device_train_batch_size": 24,
                "early_stopping_patience": None,
                "bf16": False,
            },
        }
    )
    length, said = result.metrics["training"]["length"], "The training ended too early"
    assert length["ended_too_early"] == bool(words), length
    assert words in length["words"]
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    card = (result.folder / "README.md").read_text(encoding="utf-8")
    assert [said in text for text in (capsys.readouterr().out, page, card)] == [bool(words)] * 3
    if words:
        assert f"- {said}: {length['words']}" in card
        assert "<code>training.num_train_epochs: 20</code>" in page


@pytest.mark.exhaustive
def test_head_on_a_frozen_encoder_has_no_length(small_config, tmp_path):
    from small_runs import train

    config = small_config(tmp_path / "head", training={"bf16": False})
    folder = train(config, **{"model.mode": "head"})
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert "length" not in metrics["training"]

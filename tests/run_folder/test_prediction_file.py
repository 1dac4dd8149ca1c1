"""predictions.parquet of few and of many classes: what is written is read again, in blocks."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from trainer.errors import RunError
from trainer.evaluation import blocks
from trainer.evaluation.outcome import outcome_of
from trainer.run_folder import prediction_file
from trainer.run_folder.prediction_file import read_predictions
from trainer.run_folder.predictions import Predictions
from trainer.run_folder.writer import RunFolder


def outcome(num_classes, num_rows=90, *, several=False, seed=0):
    rng = np.random.default_rng(seed)
    logits_NC, true_N = (
        rng.normal(size=(num_rows, num_classes)).astype(np.float32),
        rng.integers(0, num_classes, num_rows),
    )
    targets = true_N
    if several:
        targets = np.zeros((num_rows, num_classes), bool)
        targets[np.arange(num_rows), true_N] = True
        targets[::3] = False  # rows without any label
        logits_NC -= 2
    return outcome_of(logits_NC, targets, names(num_classes), None, None)


def names(num_classes):
    return [f"c{c}" for c in range(num_classes)]


@pytest.mark.filterwarnings("ignore:no row of")
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("num_classes", [3, 1000, 1001])
def test_predictions_are_read_as_they_were_written(tmp_path, monkeypatch, num_classes, several):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 8 * num_classes * 7)
    parts = {
        split: (np.arange(90) + 100 * seed, outcome(num_classes, several=several, seed=seed))
        for seed, split in enumerate(("validation", "test"))
    }
    RunFolder(tmp_path).write_predictions(parts, names(num_classes))
    for split, (row_ids, made) in parts.items():
        found = prediction_file.read(tmp_path / "predictions.parquet", split, names(num_classes))
        p_NC = np.exp(np.asarray(made.log_p_NC)).astype(np.float32)
        np.testing.assert_array_equal(found.rows_N, row_ids)
        np.testing.assert_array_equal(found.targets, made.label_ids_N)
        np.testing.assert_array_equal(found.predicted, made.predicted_N)
        if num_classes <= 1000:
            np.testing.assert_array_equal(found.p_NC, p_NC)
            continue
        assert found.p_NC is None
        np.testing.assert_array_equal(found.top.p_NK, -np.sort(-p_NC, axis=1)[:, :20])
        np.testing.assert_array_equal(np.take_along_axis(p_NC, found.top.ids_NK, 1), found.top.p_NK)
        whole = Predictions(found.rows_N, found.targets, found.predicted, p_NC)
        kept = replace(whole, p_NC=None, top=found.top)
        assert kept.hardest(names(num_classes), 30) == whole.hardest(names(num_classes), 30)
        assert kept.num_wrong == whole.num_wrong
        if not several:
            ((sure, is_right),) = kept.confidences()
            np.testing.assert_array_equal(sure, p_NC.max(axis=1))
            np.testing.assert_array_equal(is_right, p_NC.argmax(axis=1) == found.targets)


@pytest.mark.filterwarnings("ignore:no row of")
def test_all_probabilities_are_kept_beside_the_largest_where_they_are_asked_for(tmp_path):
    parts = {
        "validation": (np.arange(90), outcome(1001)),
        "test": (np.arange(90), outcome(1001, seed=1)),
    }
    RunFolder(tmp_path).write_predictions(parts, names(1001))
    with pytest.raises(
        RunError,
        match=r"predictions\.npy: is missing; predictions\.parquet holds only the largest"
        r" probabilities\. Train that run again",
    ):
        read_predictions(tmp_path, "test", names(1001))
    RunFolder(tmp_path).write_predictions(parts, names(1001), keep_all=True)
    for split, (_, made) in parts.items():
        p_NC = read_predictions(tmp_path, split, names(1001))[-1]
        np.testing.assert_array_equal(p_NC, np.exp(np.asarray(made.log_p_NC)).astype(np.float32))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "predictions.npy",
        "predictions.parquet",
    ]


@pytest.mark.filterwarnings("ignore:no row of")
def test_members_of_many_classes_vote_with_all_their_probabilities(tmp_path):
    from trainer.config.config import Config
    from trainer.runs.ensemble import _vote

    values = {"model": {"name": "some/model"}, "data": {"source": "rows.csv"}}
    values["ensemble"] = {"size": 2, "combine": "mean"}

    made = [outcome(1001, seed=0), outcome(1001, seed=0)]
    made[1] = replace(made[1], log_p_NC=outcome(1001, seed=5).log_p_NC)
    members = [tmp_path / f"member-{number}" for number in (1, 2)]
    for member, one in zip(members, made, strict=True):
        member.mkdir()
        RunFolder(member).write_predictions(
            {"test": (np.arange(90), one)}, names(1001), keep_all=True
        )
    rows, voted = _vote(members, "test", names(1001), Config.model_validate(values), {}, None)
    mean_NC = np.mean([np.exp(np.asarray(one.log_p_NC)).astype(np.float32) for one in made], axis=0)
    np.testing.assert_array_equal(rows, np.arange(90))
    np.testing.assert_array_equal(voted.predicted_N, mean_NC.argmax(axis=1))
    np.testing.assert_allclose(np.exp(np.asarray(voted.log_p_NC)), mean_NC, rtol=1e-5)


def test_predictions_of_older_versions_with_rows_without_labels_are_read(tmp_path):
    import pyarrow as pa

    columns = {"row": [0, 1], "split": ["test"] * 2, "label": [[], []], "predicted": [["a"], []]}
    pq.write_table(
        pa.table(columns | {"probability_a": [0.7, 0.1], "probability_b": [0.2, 0.3]}),
        tmp_path / "predictions.parquet",
    )
    found = prediction_file.read(tmp_path / "predictions.parquet", "test", ["a", "b"])
    assert found.targets.tolist() == [[False, False]] * 2
    assert found.predicted.tolist() == [[True, False], [False, False]]

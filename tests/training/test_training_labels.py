"""Labels read from every kind of data set, and the errors for those that have none."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from test_weighted_trainer import COUNTS, arguments, model, rows
from torch.utils.data import ConcatDataset, IterableDataset, Subset
from torch.utils.data import Dataset as TorchDataset

from trainer.training.training_labels import TrainingLabels, read_labels
from trainer.training.weighted_trainer import WeightedTrainer

LABELS = [0, 2, 1, 2]


class Rows(TorchDataset):
    """The data set of many tutorials: tensors, made when a row is asked for."""

    def __init__(self, labels, name="labels"):
        self.labels, self.name = labels, name

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        return {"input_ids": torch.tensor([1, 2]), self.name: torch.tensor(self.labels[row])}


class Stream(IterableDataset):
    def __iter__(self):
        yield from rows()


def table(name="labels"):
    return Dataset.from_dict({"text": list("abcd"), name: LABELS})


def transformed():
    return table("label").with_transform(lambda batch: {"n": [len(t) for t in batch["text"]]})


@pytest.mark.parametrize(
    "dataset",
    [
        table(),
        table("label"),
        table().with_format("torch"),
        transformed(),
        [{"label_ids": label} for label in LABELS],
        Rows(LABELS),
        Subset(Rows([1, *LABELS]), range(1, 5)),
        ConcatDataset([Rows(LABELS[:2]), Rows(LABELS[2:])]),
        table().to_iterable_dataset(),
    ],
    ids=["table", "label", "torch", "transform", "list", "rows", "subset", "concat", "stream"],
)
def test_labels_of_every_kind_of_data_set(dataset):
    found = read_labels(dataset)
    assert found.tolist() == LABELS
    assert found.dtype == np.int64


def test_vectors_of_several_labels_and_named_columns():
    hot = [[1, 0], [1, 1], [0, 0]]
    assert read_labels(Rows(torch.tensor(hot).float().tolist())).tolist() == hot
    assert read_labels(Dataset.from_dict({"labels": hot})).tolist() == hot
    assert read_labels(Rows(LABELS, "target"), ["target"]).tolist() == LABELS


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (None, "cannot be read without train_dataset; give class_counts="),
        (Stream(), "Stream has no numbered rows; give class_counts="),
        (Rows([]), "Rows has no numbered rows"),
        (Rows(LABELS, "y"), "rows of Rows have no labels, label, label_ids; give class_counts="),
        (
            Dataset.from_dict({"label": ["a", "b"]}),
            "labels in 'label' are like .*'a'.*; give class",
        ),
        (Rows([0.5, 1.0]), "labels in 'labels' are like .*0.5.*; give class ids, whole numbers"),
    ],
    ids=["none", "stream", "empty", "unnamed", "names", "fractions"],
)
def test_labels_that_cannot_be_read_are_refused(dataset, words):
    with pytest.raises(ValueError, match=words):
        read_labels(dataset)


def test_class_balanced_sampler_takes_rows_without_columns(tmp_path):
    class Whole(Rows):
        def __getitem__(self, row):
            return rows()[row]

    given = Whole(range(sum(COUNTS)))
    args = arguments(tmp_path, per_device_train_batch_size=6)
    trained = WeightedTrainer(
        model(), args, train_dataset=given, sampler="class_balanced", class_counts=COUNTS
    )
    counts = [torch.bincount(b["labels"], minlength=3) for b in trained.get_train_dataloader()]
    assert all(count.tolist() == [2, 2, 2] for count in counts)


def hot_rows():
    return [{**row, "labels": np.eye(3)[row["labels"]].tolist()} for row in rows()]


class Bare(torch.nn.Module):
    """A model that is none of transformers."""


@pytest.mark.parametrize(
    ("values", "given", "words"),
    [
        ({"num_labels": 1}, {}, "num_labels is 1; WeightedTrainer needs two classes or more"),
        ({}, {"model": Bare()}, "Bare has no config; WeightedTrainer reads num_labels"),
        (
            {},
            {"train_dataset": Stream(), "sampler": "class_balanced"},
            "sampler is 'class_balanced', but the rows of an iterable dataset come in its own",
        ),
        (
            {"problem_type": "multi_label_classification"},
            {"train_dataset": None, "class_counts": COUNTS, "class_weights": "balanced"},
            "class_weights and losses of several labels a row need train_dataset's length",
        ),
        (
            {"problem_type": "multi_label_classification"},
            {"sampler": "class_balanced"},
            "problem_type is 'multi_label_classification', but the labels are class ids; give a",
        ),
    ],
    ids=["regression", "bare", "stream", "length", "vectors"],
)
def test_what_the_trainer_cannot_train_is_refused_when_it_is_made(values, given, words, tmp_path):
    kwargs = {"model": model(**values), "train_dataset": rows()} | given
    with pytest.raises(ValueError, match=words):
        WeightedTrainer(args=arguments(tmp_path, max_steps=1), **kwargs)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ([{**row, "labels": None} for row in rows()], r"the batch has no labels; the loss needs"),
        (
            hot_rows(),
            r"has labels of shape \(4, 3\); the loss needs 'labels' of shape",
        ),
    ],
    ids=["unlabelled", "vectors"],
)
def test_batches_whose_labels_do_not_fit_the_loss_are_refused(dataset, words, tmp_path):
    dataset = [{key: value for key, value in row.items() if value is not None} for row in dataset]
    trained = WeightedTrainer(model(), arguments(tmp_path, max_steps=1), train_dataset=dataset)
    with pytest.raises(ValueError, match=words):
        trained.train()


def test_answers_that_are_left_out_are_not_counted():
    dataset = [{"labels": [1, 0, -100]}, {"labels": [0, 1, 1]}, {"labels": [1, 0, 1]}]
    labels = TrainingLabels(dataset, (), ["a", "b", "c"], is_multi_label=True)
    assert labels.counts_C.tolist() == [2, 1, 2]


def test_keys_of_numpy_name_classes():
    labels = TrainingLabels([{"labels": 0}, {"labels": 1}], (), ["a", "b"], is_multi_label=False)
    weights_C = labels.weights({np.int64(1): 3.0}, None)
    assert weights_C.tolist() == [0.5, 1.5]


def test_sampler_of_vectors_draws_labels_evenly_and_weights_take_the_counts_drawn(tmp_path):
    hot = [[1, 0, 0]] * 60 + [[1, 1, 0]] * 10 + [[0, 0, 1]] * 2 + [[0, 0, 0]] * 18
    given = [{**rows()[0], "labels": [float(has) for has in own]} for own in hot]
    trained = WeightedTrainer(
        model(problem_type="multi_label_classification"),
        arguments(tmp_path, per_device_train_batch_size=90),
        train_dataset=given,
        sampler="class_balanced",
        class_weights="balanced",
    )
    (batch,) = trained.get_train_dataloader()
    # 24 draws a label and 18 rows without one; those for label 1 have label 0 as well
    assert 24 + 24 <= batch["labels"][:, 0].sum() <= 24 + 24 + 1
    assert batch["labels"][:, 2].sum() == 24
    assert (batch["labels"].sum(1) == 0).sum() == 18
    counts_C = trained.labels.counts_C
    assert counts_C.tolist() == [24 + 24, 24 + round(24 * 10 / 70), 24]
    expected = [(90 - n) / n for n in counts_C]
    assert trained.class_weights_C[1].tolist() == pytest.approx(expected)


def test_sampler_refuses_rows_of_vectors_whose_labels_are_all_unknown(tmp_path):
    unknown, known = [-100.0] * 3, [1.0, 0.0, 1.0]
    given = [{**row, "labels": unknown if n < 2 else known} for n, row in enumerate(rows())]
    with pytest.raises(ValueError, match=r"rows with the label -100 have no class \(2 of"):
        WeightedTrainer(
            model(problem_type="multi_label_classification"),
            arguments(tmp_path),
            train_dataset=given,
            sampler="class_balanced",
        )

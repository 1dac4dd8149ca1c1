"""The cases of transformers' own tests of Trainer, with WeightedTrainer in its place."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from datasets import Dataset
from test_weighted_trainer import accuracy, arguments, model, rows, weights_of
from torch.utils.data import IterableDataset
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from trainer.config.sections.training import training_specs
from trainer.training.arguments import OWN_KEYS, build_arguments, installed_name
from trainer.training.weighted_trainer import WeightedTrainer

CHECKPOINTING = installed_name("activation_checkpointing")
DAILY = {
    "clipped": {"max_grad_norm": 0.05, "logging_first_step": True, "logging_steps": 2},
    "neftune": {"neftune_noise_alpha": 5.0},
    "bf16": {"bf16": True},
}
LONG = {
    "epochs": {"max_steps": -1, "num_train_epochs": 0.5, "dataloader_drop_last": True},
    "recomputed": {CHECKPOINTING: True},
    "cosine": {"lr_scheduler_type": "cosine", "warmup_steps": 2},
    "min_lr": {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-5}},
    "plateau": {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps",
                "eval_steps": 2, "metric_for_best_model": "loss"},
    "polynomial": {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0}},
    "adafactor": {"optim": "adafactor"},
    "adagrad": {"optim": "adagrad", "weight_decay": 0.1},
    "betas": {"adam_beta1": 0.5, "adam_beta2": 0.9, "adam_epsilon": 1e-4},
    "data_seed": {"data_seed": 5},
    "length": {"train_sampling_strategy": "group_by_length"},
    "workers": {"dataloader_num_workers": 1, "dataloader_persistent_workers": True},
    "determinism": {"full_determinism": True},
    "compiled": {"torch_compile": True, "torch_compile_backend": "eager"},
    "tokens": {"include_num_input_tokens_seen": "all", "logging_nan_inf_filter": False},
    "own columns": {"remove_unused_columns": False},
    "split batches": {"accelerator_config": {"split_batches": True}},
}  # fmt: skip
VARIANTS = [
    *(pytest.param(values, id=name) for name, values in DAILY.items()),
    *(pytest.param(v, id=name, marks=pytest.mark.exhaustive) for name, v in LONG.items()),
]
TIMES = ("runtime", "per_second", "preparation_time")


def facts(trained):
    """The log without times."""
    return [
        {key: value for key, value in line.items() if not key.endswith(TIMES)}
        for line in trained.state.log_history
    ]


@pytest.mark.parametrize("values", VARIANTS)
def test_every_argument_does_what_it_does_to_the_parent(values, tmp_path):
    found = []
    for kind in (Trainer, WeightedTrainer):
        args = arguments(tmp_path, **{"max_steps": 6, "logging_steps": 1, "seed": 3, **values})
        trained = kind(model(0.1), args, train_dataset=rows(), eval_dataset=rows(seed=1))
        trained.train()
        found.append((weights_of(trained), facts(trained), trained.state.global_step))
    (stock, stock_log, stock_steps), (ours, log, steps) = found
    assert torch.allclose(stock, ours, atol=1e-6)
    assert steps == stock_steps
    assert [sorted(line) for line in log] == [sorted(line) for line in stock_log]
    for line, stock_line in zip(log, stock_log, strict=True):
        assert line == pytest.approx(stock_line, rel=1e-4)


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ({"num_train_epochs": 2}, 24),
        ({"num_train_epochs": 1.5}, 18),
        ({"max_steps": 5, "num_train_epochs": 9}, 5),
        ({"gradient_accumulation_steps": 5, "num_train_epochs": 2}, 6),
        ({"per_device_train_batch_size": 10, "dataloader_drop_last": True}, 4),
        ({"per_device_train_batch_size": 10}, 5),
    ],
    ids=["epochs", "fraction", "max_steps", "accumulated", "drop_last", "rest"],
)
@pytest.mark.parametrize("sampler", [None, "class_balanced"])
def test_number_of_steps(values, steps, sampler, tmp_path):
    seen = []

    class Note(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            seen.append(state.max_steps)
            control.should_training_stop = True

    args = arguments(tmp_path, **values)
    trained = WeightedTrainer(
        model(), args, train_dataset=rows(), sampler=sampler, callbacks=[Note()]
    )
    trained.train()
    assert seen == [steps]


@pytest.mark.parametrize(
    "sampler", [pytest.param(None, marks=pytest.mark.exhaustive), "class_balanced"]
)
def test_a_seed_gives_the_same_weights_again_and_data_seed_another_order(sampler, tmp_path):
    def trained(**values):
        args = arguments(tmp_path, max_steps=4, **values)
        made = WeightedTrainer(model(0.1), args, train_dataset=rows(), sampler=sampler)
        made.train()
        return weights_of(made)

    first = trained(seed=1)
    assert torch.equal(first, trained(seed=1))
    assert not torch.equal(first, trained(seed=2))
    assert not torch.equal(first, trained(seed=1, data_seed=2))


def without_labels():
    return [{k: v for k, v in row.items() if k != "labels"} for row in rows(seed=1)]


class Stream(IterableDataset):
    """Rows that come in their own order, without a length."""

    def __init__(self, given):
        self.given = given

    def __iter__(self):
        yield from self.given


def test_evaluate_and_predict_with_and_without_labels(tmp_path):
    trained = WeightedTrainer(
        model(), arguments(tmp_path), train_dataset=rows(), compute_metrics=accuracy,
        class_weights="balanced",
    )  # fmt: skip
    labelled = trained.predict(rows(seed=1))
    bare = trained.predict(without_labels(), metric_key_prefix="new")
    streamed = trained.predict(Stream(rows(seed=1)))
    assert np.array_equal(labelled.predictions, bare.predictions)
    assert np.array_equal(labelled.predictions, streamed.predictions)
    assert labelled.label_ids.tolist() == [row["labels"] for row in rows(seed=1)]
    assert bare.label_ids is None
    assert {"test_loss", "test_accuracy"} <= set(labelled.metrics)
    assert not {"new_loss", "new_accuracy"} & set(bare.metrics)
    assert "eval_loss" not in trained.evaluate(without_labels())
    whole, stream = trained.evaluate(rows(seed=1)), trained.evaluate(Stream(rows(seed=1)))
    assert stream["eval_loss"] == pytest.approx(whole["eval_loss"], rel=1e-6)
    assert stream["eval_accuracy"] == whole["eval_accuracy"] == labelled.metrics["test_accuracy"]


def test_several_evaluation_sets_and_the_best_model_by_one_of_them(tmp_path):
    args = arguments(
        tmp_path, num_train_epochs=2, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="eval_far_accuracy", save_total_limit=1,
    )  # fmt: skip
    trained = WeightedTrainer(
        model(), args, train_dataset=rows(), compute_metrics=accuracy,
        eval_dataset={"near": rows(), "far": Dataset.from_list(rows(seed=1))},
    )  # fmt: skip
    trained.train()
    found = trained.evaluate()
    assert {"eval_near_loss", "eval_near_accuracy", "eval_far_loss"} <= set(found)
    assert found["eval_far_accuracy"] == trained.state.best_metric
    assert trained.get_eval_dataloader("far").dataset[0].keys() >= {"labels"}


def padded(batch):
    width = max(len(row["input_ids"]) for row in batch)
    fill = [{k: v if k == "labels" else v + [0] * (width - len(v)) for k, v in row.items()}
            for row in batch]  # fmt: skip
    return default_data_collator(fill)


def ragged():
    cut = np.random.default_rng(0).integers(2, 9, 48)
    return [{k: v if k == "labels" else v[: cut[n]] for k, v in row.items()}
            for n, row in enumerate(rows())]  # fmt: skip


def test_rows_of_any_length_and_columns_that_the_model_does_not_know(tmp_path):
    given = Dataset.from_list([{**row, "text": "a", "split": 1} for row in ragged()])
    found = []
    for size, steps in ((3, None), (16, 2)):
        args = arguments(
            tmp_path, max_steps=3, per_device_eval_batch_size=size, eval_accumulation_steps=steps
        )
        trained = WeightedTrainer(
            model(), args, padded, given, given, class_weights="balanced",
            sampler="group_by_length", preprocess_logits_for_metrics=lambda x, labels: x.argmax(1),
            compute_metrics=lambda p: {"right": int((p.predictions == p.label_ids).sum())},
        )  # fmt: skip
        trained.train()
        found.append(trained.evaluate())
    assert found[0]["eval_loss"] == pytest.approx(found[1]["eval_loss"], rel=1e-5)
    assert found[0]["eval_right"] == found[1]["eval_right"]


def test_metrics_by_batches(tmp_path):
    seen = []

    def right(prediction, compute_result):
        seen.append(int((prediction.predictions.argmax(1) == prediction.label_ids).sum()))
        return {"right": sum(seen)} if compute_result else {}

    args = arguments(tmp_path, batch_eval_metrics=True, include_for_metrics=["inputs", "loss"])
    trained = WeightedTrainer(model(), args, eval_dataset=rows(), compute_metrics=right)
    assert trained.evaluate()["eval_right"] == sum(seen)
    assert len(seen) == 3


def test_rows_of_an_iterable_dataset_train_for_max_steps(tmp_path):
    args = arguments(tmp_path, max_steps=15, gradient_accumulation_steps=2)
    trained = WeightedTrainer(
        model(), args, train_dataset=Stream(rows()), class_weights="sqrt", class_counts=(30, 12, 6)
    )
    trained.train()
    assert trained.state.global_step == 15  # more than two epochs


def test_callbacks_are_added_popped_and_removed_and_can_stop_the_training(tmp_path):
    class Mine(TrainerCallback):
        pass

    args = arguments(
        tmp_path, num_train_epochs=9, eval_strategy="epoch", save_strategy="epoch", learning_rate=0,
        load_best_model_at_end=True, metric_for_best_model="accuracy", save_total_limit=1,
    )  # fmt: skip
    trained = WeightedTrainer(
        model(), args, train_dataset=rows(), eval_dataset=rows(seed=1), compute_metrics=accuracy,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )  # fmt: skip
    trained.add_callback(Mine)
    mine = trained.pop_callback(Mine)
    assert type(mine) is Mine
    trained.add_callback(mine)
    trained.remove_callback(mine)
    assert trained.pop_callback(Mine) is None
    trained.train()
    assert trained.state.epoch == 3  # the first is the best, then two that are no better


def test_optimizers_of_the_user(tmp_path):
    own, args = model(), arguments(tmp_path, max_steps=3)
    optimizer = torch.optim.SGD(own.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    given = WeightedTrainer(
        own, args, train_dataset=rows(), class_weights="sqrt", optimizers=(optimizer, schedule)
    )
    given.train()
    assert given.optimizer.param_groups[0]["lr"] == 0.5
    args.lr_scheduler_type = "constant"
    named = WeightedTrainer(
        model(), args, train_dataset=rows(), class_weights="sqrt",
        optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.5}),
    )  # fmt: skip
    named.train()
    assert torch.allclose(weights_of(given), weights_of(named), atol=1e-6)


def test_a_subclass_reads_the_outputs_and_a_tuple_is_as_good_as_a_dict(tmp_path):
    class Own(WeightedTrainer):
        widths = ()

        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
            logits = outputs[0] if isinstance(outputs, tuple) else outputs.logits
            self.widths = (*self.widths, logits.shape[1])
            return (loss, outputs) if return_outputs else loss

    found = []
    for returns_dict in (True, False):
        args = arguments(tmp_path, max_steps=2)
        own = Own(
            model(return_dict=returns_dict), args, train_dataset=rows(), class_weights="balanced"
        )
        own.train()
        found.append((weights_of(own), own.evaluate(rows(seed=1))["eval_loss"], own.widths))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]
    assert set(found[0][2]) == {3}


def test_every_key_of_the_training_section_is_an_argument_of_the_installed_transformers(tmp_path):
    known = {field.name for field in fields(TrainingArguments)}
    assert {installed_name(key) for key in training_specs() if key not in OWN_KEYS} <= known
    given = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"a": 1}}
    args = build_arguments(given | {"use_cpu": True}, checkpoints=tmp_path, seed=0)
    assert args.gradient_checkpointing is True
    assert args.gradient_checkpointing_kwargs == {"a": 1}

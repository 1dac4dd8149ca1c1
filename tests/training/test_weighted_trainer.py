"""WeightedTrainer in place of transformers.Trainer: arguments, results, gradient."""

import copy
import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn import functional as F
from torch.utils.data import Dataset as TorchDataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from trainer.training.gradient_check import check_gradient
from trainer.training.losses.several_labels import MULTI_LABEL_LOSSES
from trainer.training.weighted_trainer import WeightedTrainer

NUM_CLASSES, COUNTS = 3, (30, 12, 6)
"""Rows of each class; their classes can be told from the first token."""


def rows(counts=COUNTS, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(len(counts)), counts)).tolist()
    return [
        {
            "input_ids": [10 + label, *generator.integers(20, 90, 7).tolist()],
            "attention_mask": [1] * 8,
            "labels": label,
        }
        for label in labels
    ]


def model(dropout=0.0, num_labels=NUM_CLASSES, **values):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=num_labels,
        **values,
    )
    return BertForSequenceClassification(config)


def arguments(folder, **values):
    defaults = {
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 16,
        "learning_rate": 1e-2,
        "num_train_epochs": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
    }
    return TrainingArguments(str(folder), **defaults | values)


def weights_of(trained):
    return torch.cat([p.detach().flatten() for p in trained.model.parameters()])


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


def test_plain_loss_equals_the_stock_trainer_bit_for_bit_over_20_steps(tmp_path):
    found = []
    for kind in (Trainer, WeightedTrainer):
        args = arguments(tmp_path, max_steps=20, weight_decay=0.01, warmup_steps=3, seed=7)
        trained = kind(model(dropout=0.1), args, train_dataset=rows(), eval_dataset=rows(seed=1))
        trained.train()
        found.append((weights_of(trained), trained.evaluate()["eval_loss"]))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-6)


def test_positional_arguments_are_those_of_the_parent(tmp_path):
    def collate(batch):
        return {name: torch.tensor([row[name] for row in batch]) for name in batch[0]}

    args = arguments(tmp_path, max_steps=2)
    trained = WeightedTrainer(model(), args, collate, rows(), rows(seed=1), class_weights="sqrt")
    assert trained.data_collator is collate
    trained.train()
    assert trained.evaluate()["eval_loss"] > 0


@pytest.mark.parametrize("kind", ["datasets", "list", "torch"])
def test_any_map_style_dataset_trains(kind, tmp_path):
    class Rows(TorchDataset):
        def __len__(self):
            return len(rows())

        def __getitem__(self, place):
            return rows()[place]

    given = {"datasets": Dataset.from_list(rows()), "list": rows(), "torch": Rows()}[kind]
    args = arguments(tmp_path, max_steps=4)
    trained = WeightedTrainer(model(), args, train_dataset=given, class_weights="balanced")
    trained.train()
    assert trained.class_weights_C.tolist() == pytest.approx([16 / 30, 16 / 12, 16 / 6])


@pytest.mark.parametrize("sizes", [(12, 1), (6, 2), (3, 4), (4, 3)])
@pytest.mark.parametrize(
    ("loss", "class_weights"),
    [("cross_entropy", "balanced"), ("focal", {0: 0.5}), ("logit_adjusted", None)],
)
def test_a_step_is_the_same_however_it_is_cut(loss, class_weights, sizes, tmp_path):
    found = []
    for per_device, steps in ((12, 1), sizes):
        args = arguments(
            tmp_path,
            max_steps=3,
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=steps,
            train_sampling_strategy="sequential",
            optim="sgd",
        )
        trained = WeightedTrainer(
            model(), args, train_dataset=rows(), loss=loss, class_weights=class_weights
        )
        trained.train()
        found.append(weights_of(trained))
    assert torch.allclose(*found, atol=1e-6)


def test_two_processes_that_accumulate_take_the_steps_of_one(tmp_path):
    args = arguments(
        tmp_path,
        max_steps=3,
        per_device_train_batch_size=12,
        train_sampling_strategy="sequential",
        optim="sgd",
    )
    alone = WeightedTrainer(model(), args, train_dataset=rows(), class_weights="balanced")
    alone.train()
    script, out = Path(__file__).with_name("two_process_weighted.py"), tmp_path / "weights.pt"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run(
        [sys.executable, *launcher, str(script), str(tmp_path), str(out)],
        check=True,
        capture_output=True,
        timeout=200,
    )
    assert torch.allclose(weights_of(alone), torch.load(out, weights_only=True), atol=1e-6)


def test_gradient_is_the_sum_of_weighted_losses_over_the_rows_of_the_step(tmp_path):
    weights_C = torch.tensor([0.5, 1.0, 4.0])
    args = arguments(tmp_path, max_steps=1, gradient_accumulation_steps=3, optim="sgd")
    args.train_sampling_strategy, args.max_grad_norm = "sequential", 0.0
    args.learning_rate, args.lr_scheduler_type = 1.0, "constant"
    trained = WeightedTrainer(model(), args, train_dataset=rows(), class_weights=weights_C)
    before = weights_of(trained)
    reference = model()
    batch = {key: torch.tensor([row[key] for row in rows()[:12]]) for key in rows()[0]}
    labels_N = batch.pop("labels")
    logits_NC = reference(**batch).logits
    (F.cross_entropy(logits_NC, labels_N, weight=weights_C, reduction="sum") / 12).backward()
    expected = torch.cat(
        [torch.zeros(p.numel()) if p.grad is None else p.grad.flatten()
         for p in reference.parameters()]
    )  # fmt: skip
    trained.train()
    assert torch.allclose(before - weights_of(trained), expected, atol=1e-6)


def test_check_gradient_passes_ours_and_finds_both_faults(tmp_path):
    class Blog(Trainer):
        """The override that is found in blogs."""

        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            weight = torch.tensor([0.5, 1.0, 4.0])
            loss = torch.nn.CrossEntropyLoss(weight=weight)(outputs.logits, labels)
            return (loss, outputs) if return_outputs else loss

    args = arguments(tmp_path)
    ours = WeightedTrainer(model(0.1), args, train_dataset=rows(), class_weights="balanced")
    random_state, before = torch.get_rng_state(), weights_of(ours)
    found = check_gradient(ours)
    assert found.passed
    assert bool(found)
    assert "does not depend" in str(found)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(weights_of(ours), before)
    assert all(p.grad is None for p in ours.model.parameters())
    assert ours.args.gradient_accumulation_steps == 1
    stock = check_gradient(Trainer(model(), arguments(tmp_path), train_dataset=rows()))
    assert not stock.passed
    assert stock.ratios[(4, 4)] == pytest.approx(2, abs=0.01)  # twice as large in two batches
    assert "DEPENDS" in str(stock)
    assert not check_gradient(Blog(model(), arguments(tmp_path), train_dataset=rows())).passed
    with pytest.raises(ValueError, match="num_rows is 2; give 4 to 48"):
        check_gradient(ours, num_rows=2)


def test_evaluation_loss_is_the_mean_over_rows_whatever_the_batch_size(tmp_path):
    losses = []
    for size in (5, 48):
        args = arguments(tmp_path, per_device_eval_batch_size=size)
        given = {"train_dataset": rows(), "eval_dataset": rows(seed=1), "class_weights": "balanced"}
        losses.append(WeightedTrainer(model(), args, **given).evaluate()["eval_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_model_init_starts_each_training_anew(tmp_path):
    trained = WeightedTrainer(
        args=arguments(tmp_path, max_steps=2),
        model_init=lambda: model(),
        train_dataset=rows(),
        eval_dataset=rows(seed=1),
        compute_metrics=accuracy,
        class_weights="effective_number",
    )
    trained.train()
    first = weights_of(trained)
    trained.train()  # from the same start
    assert torch.equal(weights_of(trained), first)


def test_best_model_by_an_own_metric_is_loaded_at_the_end(tmp_path):
    args = arguments(
        tmp_path / "out",
        num_train_epochs=3,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=None,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
    )
    trained = WeightedTrainer(
        model(),
        args,
        train_dataset=rows(),
        eval_dataset=rows(seed=1),
        compute_metrics=accuracy,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=5)],
        loss="focal",
        loss_settings={"gamma": 1.0},
    )
    trained.train()
    kept = sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*"))
    assert kept == ["checkpoint-12", "checkpoint-24", "checkpoint-36"]  # no limit
    best = trained.state.best_metric
    assert trained.evaluate()["eval_accuracy"] == best
    trained.save_model(str(tmp_path / "new" / "folder"))
    saved = BertForSequenceClassification.from_pretrained(tmp_path / "new" / "folder")
    assert torch.equal(saved.classifier.weight, trained.model.classifier.weight)


def test_training_resumes_from_a_checkpoint_like_its_parent(tmp_path):
    def trained(folder, **values):
        args = arguments(folder, num_train_epochs=2, save_strategy="steps", save_steps=12, **values)
        return WeightedTrainer(
            model(0.1), args, train_dataset=rows(), class_weights="sqrt", sampler="class_balanced"
        )

    whole = trained(tmp_path / "a")
    whole.train()
    resumed = trained(tmp_path / "a")
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-12"))
    assert torch.equal(weights_of(whole), weights_of(resumed))


def test_callbacks_logs_and_label_smoothing_are_the_parents(tmp_path):
    seen = []

    class Note(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(logs)

    args = arguments(tmp_path, max_steps=4, logging_steps=1, label_smoothing_factor=0.1)
    trained = WeightedTrainer(model(), args, train_dataset=rows(), callbacks=[Note()])
    trained.train()
    assert [sorted(logs)[0] for logs in seen[:4]] == ["epoch"] * 4
    stock = Trainer(model(), copy.deepcopy(args), train_dataset=rows())
    stock.train()
    assert trained.state.log_history[0]["loss"] == pytest.approx(
        stock.state.log_history[0]["loss"], rel=1e-5
    )


def test_several_labels_a_row_take_positive_weights(tmp_path):
    several = [{**row, "labels": np.eye(3)[row["labels"]].tolist()} for row in rows()]
    trained = WeightedTrainer(
        model(problem_type="multi_label_classification"),
        arguments(tmp_path, max_steps=2),
        train_dataset=Dataset.from_list(several),
        eval_dataset=Dataset.from_list(several),
        class_weights="balanced",
    )
    without, having = trained.class_weights_C.tolist()
    assert (without, having) == ([1, 1, 1], pytest.approx([18 / 30, 36 / 12, 42 / 6]))
    assert check_gradient(trained)
    trained.train()
    assert trained.evaluate()["eval_loss"] > 0


@pytest.mark.parametrize("loss", MULTI_LABEL_LOSSES)
def test_gradient_of_every_multi_label_loss_is_that_of_the_whole_step(loss, tmp_path):
    several = [{**row, "labels": np.eye(3)[row["labels"]].tolist()} for row in rows()]
    trained = WeightedTrainer(
        model(problem_type="multi_label_classification"),
        arguments(tmp_path, max_steps=2, gradient_accumulation_steps=4),
        train_dataset=several,
        class_weights=None if loss == "cb_ntr" else "effective_number",
        loss=loss,
    )
    assert check_gradient(trained)
    trained.train()
    assert trained.state.global_step == 2


def test_deferred_weights_train_plainly_first_and_with_weights_after(tmp_path):
    """The first three of six steps equal plain training, the fourth does not."""
    common = {"max_steps": 6, "lr_scheduler_type": "constant"}

    def trained(folder, stop=None, **given):
        class Stop(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                control.should_training_stop = state.global_step == stop

        args = arguments(tmp_path / folder, **common)
        trainer = WeightedTrainer(model(), args, train_dataset=rows(), callbacks=[Stop()], **given)
        trainer.train()
        return weights_of(trainer)

    weights = torch.tensor([0.2, 1.0, 5.0])
    deferred = {"class_weights": weights, "defer_weights": 0.5}
    assert torch.equal(trained("plain", stop=3), trained("early", stop=3, **deferred))
    assert not torch.equal(trained("plain", stop=4), trained("later", stop=4, **deferred))


def test_loss_of_deferred_weights_by_step(tmp_path):
    trainer = WeightedTrainer(
        model(),
        arguments(tmp_path),
        train_dataset=rows(),
        class_weights=torch.tensor([1.0, 1.0, 5.0]),
        defer_weights=0.6,
    )
    trainer.state.max_steps, losses = 5, []
    for step in range(5):
        trainer.state.global_step = step
        logits = {"logits": torch.zeros(1, 3)}
        outputs = type("Outputs", (), logits)
        losses.append(float(trainer.compute_loss_func(outputs, torch.tensor([2]), 1)))
    plain = np.log(3)
    assert losses == pytest.approx([plain, plain, plain, 5 * plain, 5 * plain])


def test_nothing_is_balanced_twice_with_the_class_balanced_sampler(tmp_path):
    given = {"train_dataset": rows(), "sampler": "class_balanced"}
    weighted = WeightedTrainer(model(), arguments(tmp_path), class_weights="balanced", **given)
    assert weighted.class_weights_C.tolist() == [1, 1, 1]
    adjusted = WeightedTrainer(model(), arguments(tmp_path), loss="logit_adjusted", **given)
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    found = adjusted.compute_loss_func(type("Outputs", (), {"logits": logits}), labels)
    assert found.item() == pytest.approx(F.cross_entropy(logits, labels).item())


def test_loss_of_shares_refuses_a_class_without_rows(tmp_path):
    with pytest.raises(ValueError, match=r"needs rows of every class; .* class ids 2"):
        WeightedTrainer(
            model(), arguments(tmp_path), train_dataset=rows((30, 12)), loss="balanced_softmax"
        )


def test_class_balanced_sampler_shows_every_class_equally_often(tmp_path):
    args = arguments(tmp_path, per_device_train_batch_size=6)
    trained = WeightedTrainer(model(), args, train_dataset=rows(), sampler="class_balanced")
    counts = [torch.bincount(b["labels"], minlength=3) for b in trained.get_train_dataloader()]
    assert all(count.tolist() == [2, 2, 2] for count in counts)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"loss": "focl"}, "loss is 'focl'; known: .* Did you mean 'focal'?"),
        ({"class_weights": "balance"}, "class_weights is 'balance'; known: .*Did you mean 'bal"),
        ({"class_weights": {"LABEL_7": 2.0}}, "class_weights names 'LABEL_7'; known: LABEL_0, "),
        ({"class_weights": torch.ones(2)}, r"class_weights has the shape \(2,\); give \(3,\)"),
        ({"sampler": "balanced"}, "sampler is 'balanced'; known: None, 'class_balanced'"),
        ({"class_counts": (1, 2), "class_weights": "sqrt"}, "name 2 classes; .*num_labels is 3"),
        (
            {"loss": "focal", "loss_settings": {"gama": 1.0}},
            "a key of loss_settings for focal is 'gama'; known: 'gamma'. Did you mean 'gamma'?",
        ),
        ({"loss": "asymmetric"}, "loss is 'asymmetric'; known: 'cross_entropy', 'focal', "),
        ({"compute_loss_func": print}, "WeightedTrainer sets compute_loss_func"),
        ({"class_weights": {0: -1.0}}, "the weight of 'LABEL_0' is -1; give a number above 0"),
        ({"class_weights": {0: 1.0, "LABEL_0": 2.0}}, "names 'LABEL_0' twice, by its name and by"),
        ({"class_weights": [1.0, 2.0, 3.0]}, "class_weights is of type list; give a name, a map"),
        ({"class_weights": torch.tensor([1.0, 1.0, torch.nan])}, "holds a value below 0, nan or"),
        ({"class_counts": (5, -2, 1), "class_weights": "sqrt"}, "class_counts is -2, 1, 5; give"),
        ({"class_weights": "effective_number", "beta": 2.0}, "beta is 2.0; needed: less than 1"),
        ({"defer_weights": 0.5}, "defer_weights is 0.5; it needs class_weights and a share betw"),
        ({"defer_weights": 1.0, "class_weights": "sqrt"}, "defer_weights is 1; it needs class_we"),
        ({"class_weights": "balanced", "beta": 0.9}, "beta is set, but only class_weights: effe"),
        ({"loss": "focal", "loss_settings": {"gamma": -1}}, "gamma is -1; needed: greater than"),
        (
            {"train_dataset": [*rows(), rows()[0] | {"labels": -100}], "sampler": "class_balanced"},
            r"rows with the label -100 have no class \(1 of 49\); leave them out",
        ),
    ],
)
def test_bad_arguments_are_refused_with_the_remedy(given, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        WeightedTrainer(model(), arguments(tmp_path), **({"train_dataset": rows()} | given))


def test_model_and_arguments_are_left_as_they_were(tmp_path):
    given, args = model(), arguments(tmp_path, max_steps=2)
    modules = [type(module) for module in given.modules()]
    values = args.to_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        WeightedTrainer(given, args, train_dataset=rows(), class_weights="balanced").train()
    assert [type(module) for module in given.modules()] == modules
    changed = {key for key, value in args.to_dict().items() if values[key] != value}
    assert changed == set(), json.dumps(sorted(changed))

"""Checkpoints, other kinds of models, searches and sharding with WeightedTrainer."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, LoraConfig, get_peft_model
from test_weighted_trainer import accuracy, arguments, model, rows, weights_of
from transformers import BertForSequenceClassification, TrainerCallback

from trainer.training.weighted_trainer import WeightedTrainer


def saving(folder, **values):
    defaults = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 5}
    return arguments(folder, **defaults | values)


LONG = pytest.mark.exhaustive


@pytest.mark.parametrize("sampler", [pytest.param(None, marks=LONG), "class_balanced"])
@pytest.mark.parametrize("step", [5, pytest.param(10, marks=LONG)])
def test_a_training_resumed_within_an_epoch_ends_as_the_unbroken_one(sampler, step, tmp_path):
    def trained():
        args = saving(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=3)
        return WeightedTrainer(
            model(0.1), args, train_dataset=rows(), class_weights="sqrt", sampler=sampler
        )

    whole, resumed = trained(), trained()
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert torch.equal(weights_of(whole), weights_of(resumed))
    assert resumed.state.global_step == whole.state.global_step == 16


@LONG
def test_frozen_weights_stay_and_another_batch_size_is_taken_after_a_checkpoint(tmp_path):
    def trained(**values):
        own = model()
        own.bert.requires_grad_(False)
        return WeightedTrainer(own, saving(tmp_path, **values), train_dataset=rows())

    first = trained()
    first.train()
    resumed = trained(per_device_train_batch_size=8)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert torch.equal(resumed.model.bert.pooler.dense.weight, model().bert.pooler.dense.weight)
    assert not torch.equal(resumed.model.classifier.weight, model().classifier.weight)
    assert resumed.state.max_steps == 2 * 6  # epochs of 48 rows in batches of 8


def test_a_missing_checkpoint_is_the_parents_error(tmp_path):
    trained = WeightedTrainer(model(), saving(tmp_path), train_dataset=rows())
    with pytest.raises(ValueError, match="No valid checkpoint found in output directory"):
        trained.train(resume_from_checkpoint=True)


def test_old_checkpoints_go_and_the_saved_model_loads(tmp_path):
    trained = WeightedTrainer(
        model(), saving(tmp_path / "out", save_total_limit=2), train_dataset=rows()
    )
    trained.train()
    kept = sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*"))
    assert kept == ["checkpoint-20", "checkpoint-24"]
    trained.save_model(str(tmp_path / "model"))
    loaded = BertForSequenceClassification.from_pretrained(tmp_path / "model")
    assert torch.equal(weights_of(trained), torch.cat([p.flatten() for p in loaded.parameters()]))
    assert not list((tmp_path / "model").glob("*.pt"))


class Small(TrainerCallback):
    """Memory for fewer than 5 rows: the error of CUDA."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.train_batch_size >= 5:
            raise RuntimeError("CUDA out of memory.")


@pytest.mark.parametrize("sampler", [pytest.param(None, marks=LONG), "class_balanced"])
def test_a_batch_size_that_fits_is_found(sampler, tmp_path):
    args = arguments(
        tmp_path, auto_find_batch_size=True, per_device_train_batch_size=6, max_steps=3
    )
    trained = WeightedTrainer(
        model(), args, train_dataset=rows(), sampler=sampler, class_weights="balanced",
        callbacks=[Small()],
    )  # fmt: skip
    trained.train()
    assert trained.state.global_step == 3
    assert trained.state.train_batch_size < 5


def adapted():
    torch.manual_seed(0)
    config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    return get_peft_model(model(), config)


def test_an_adapter_trains_saves_and_loads(tmp_path):
    model().save_pretrained(tmp_path / "base")
    own = adapted()
    own.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    trained = WeightedTrainer(
        own, saving(tmp_path / "out", save_steps=20), train_dataset=rows(),
        eval_dataset=rows(seed=1), class_weights="balanced", loss="logit_adjusted",
    )  # fmt: skip
    trained.train()
    assert trained.class_weights_C.tolist() == pytest.approx([16 / 30, 16 / 12, 16 / 6])
    before = trained.predict(rows(seed=1)).predictions
    trained.save_model(str(tmp_path / "adapter"))
    loaded = AutoPeftModelForSequenceClassification.from_pretrained(
        tmp_path / "adapter", num_labels=3
    )
    again = WeightedTrainer(loaded, arguments(tmp_path)).predict(rows(seed=1)).predictions
    assert before == pytest.approx(again, abs=1e-6)
    resumed = WeightedTrainer(
        adapted(), saving(tmp_path / "out", save_steps=20), train_dataset=rows(),
        class_weights="balanced", loss="logit_adjusted",
    )  # fmt: skip
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-20"))
    assert torch.allclose(weights_of(trained), weights_of(resumed), atol=1e-6)


def test_hyperparameters_are_searched(tmp_path):
    optuna = pytest.importorskip("optuna")
    rates = [0.0, 1e-2]
    trained = WeightedTrainer(
        args=arguments(tmp_path, eval_strategy="epoch", num_train_epochs=2),
        model_init=lambda trial: model(),
        train_dataset=rows(),
        eval_dataset=rows(seed=1),
        compute_metrics=accuracy,
        sampler="class_balanced",
    )
    best = trained.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", rates)},
        compute_objective=lambda metrics: metrics["eval_accuracy"],
        direction="maximize",
        backend="optuna",
        n_trials=2,
        sampler=optuna.samplers.GridSampler({"learning_rate": rates}),
    )
    assert best.hyperparameters["learning_rate"] == 1e-2
    assert best.objective > 0.8


@LONG
@pytest.mark.parametrize("sampler", ["sequential", "class_balanced"])
def test_two_processes_that_share_the_weights_train_as_one(sampler, tmp_path):
    script = Path(__file__).with_name("two_process_sharded.py")
    found = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.pt"
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        options = json.dumps({"sampler": sampler, "processes": processes})
        subprocess.run(
            [sys.executable, *launcher, str(script), str(tmp_path / "out"), str(out), options],
            check=True,
            timeout=250,
        )
        found.append(torch.load(out, weights_only=True))
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert found[1]["sharded"]
    assert torch.allclose(found[0]["weights"], found[1]["weights"], atol=1e-6)
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-5)

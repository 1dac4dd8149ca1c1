"""The device and the precision of training; accelerators are simulated on CPUs."""

import os

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertForSequenceClassification

from trainer import load_config
from trainer.delivery.predicting.predict import Classifier
from trainer.launch import distributed
from trainer.runs import startup
from trainer.training import device_trainer
from trainer.training.arguments import build_arguments
from trainer.training.batches import packed_attention
from trainer.training.losses.one_label import LOSSES
from trainer.training.losses.several_labels import binary_cross_entropy
from trainer.training.losses.step_loss import step_loss
from trainer.training.resuming.resumable_trainer import ResumableTrainer
from trainer.training.run_trainer import RunTrainer


@pytest.fixture
def accelerator(monkeypatch):
    """Function (kind) that simulates an accelerator; None: torch for CUDA without a GPU."""

    def play(kind):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind is not None)
        monkeypatch.setattr(
            torch.accelerator,
            "current_accelerator",
            lambda check_available=False: torch.device(kind or "cuda"),
        )
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: kind == "mps")

    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return play


def test_cpu_that_was_asked_for_trains_in_its_own_precision_whatever_gpu_there_is(
    accelerator, config_file, monkeypatch
):
    accelerator("cuda")
    monkeypatch.setattr(distributed, "gains_from_bf16", lambda device: device == "cuda")
    on_gpu, on_cpu = (
        load_config(config_file(training={"bf16": ..., "use_cpu": use_cpu}))
        for use_cpu in (False, True)
    )
    assert startup.with_hardware_defaults(on_gpu).training_values["bf16"] is True
    assert startup.with_hardware_defaults(on_cpu).training_values["bf16"] is False
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert startup.with_hardware_defaults(on_gpu).training_values["bf16"] is False


def test_bfloat16_is_judged_on_the_device_that_trains(accelerator, monkeypatch):
    accelerator("cuda")
    assert distributed.gains_from_bf16("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert not distributed.gains_from_bf16("cuda")
    assert not distributed.gains_from_bf16("mps")


def test_apple_gpus_train_in_float32_and_what_was_asked_for_is_told(accelerator, config_file):
    accelerator("mps")
    for asked in ({"bf16": True}, {"bf16": ..., "fp16": True}):
        given = load_config(config_file(training=asked))
        values = startup.with_hardware_defaults(given).training_values
        assert not any(values.get(name) for name in ("bf16", "fp16"))
        name = "bf16" if asked["bf16"] is True else "fp16"
        assert startup.apple_limits(given.training_values, use_cpu=False) == [
            f"Apple GPUs train in float32 here: training.{name} is ignored."
        ]
    plain = load_config(config_file(training={"bf16": ...}))
    assert startup.with_hardware_defaults(plain).training_values["bf16"] is False
    assert startup.apple_limits(plain.training_values, use_cpu=False) == []


def test_several_processes_on_an_apple_gpu_train_on_the_cpu(accelerator, monkeypatch):
    accelerator("mps")
    assert distributed.device_type(use_cpu=False) == "mps"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert distributed.device_type(use_cpu=False) == "cpu"
    assert startup.apple_limits({}, use_cpu=False) == [
        "Several processes cannot share an Apple GPU: they train on the CPU."
    ]
    assert startup.apple_limits({}, use_cpu=True) == []


def test_loader_does_not_pin_batches_which_are_pinned_where_they_are_sent(accelerator, tmp_path):
    accelerator("cuda")
    values = build_arguments({"use_cpu": False, "bf16": False}, checkpoints=tmp_path, seed=0)
    assert values.dataloader_pin_memory is False


def test_torch_built_for_cuda_predicts_on_the_cpu_of_a_machine_without_a_gpu(
    accelerator, tiny_model, tmp_path
):
    BertForSequenceClassification.from_pretrained(tiny_model, num_labels=2).save_pretrained(
        tmp_path
    )
    for file in tiny_model.glob("*token*"):
        (tmp_path / file.name).symlink_to(file)
    accelerator(None)
    classifier = Classifier.load(tmp_path)
    assert classifier.models[0].device == torch.device("cpu")
    assert classifier.predict("a text").label in classifier.labels


def test_model_whose_packed_logits_differ_in_the_precision_that_trains_alone_is_padded(
    monkeypatch, tmp_path
):
    attend = packed_attention._attend

    def broken(q, *arguments, **values):
        return attend(q, *arguments, **values) * (2 if q.dtype == torch.bfloat16 else 1)

    monkeypatch.setattr(packed_attention, "_attend", broken)
    reasons = {}
    for bf16 in (False, True):
        torch.manual_seed(0)
        sizes = {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "vocab_size": 99,
        }
        model = BertForSequenceClassification(BertConfig(**sizes, initializer_range=0.5))
        args = build_arguments({"bf16": bf16, "use_cpu": True}, checkpoints=tmp_path, seed=0)
        reasons[bf16] = RunTrainer(model=model, args=args).padded_because
    assert reasons == {False: None, True: "its logits would change in bfloat16"}


def test_operations_that_apple_gpus_lack_may_run_on_the_cpu(monkeypatch):
    for platform, allowed in (("linux", None), ("darwin", "1")):
        monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)
        monkeypatch.setattr("sys.platform", platform)
        distributed.allow_missing_operations()
        assert os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK") == allowed
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "0")
    distributed.allow_missing_operations()
    assert os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] == "0"


def test_random_state_of_a_device_that_transformers_forgets_is_resumed(monkeypatch, tmp_path):
    monkeypatch.setattr(device_trainer, "SAVED_BY_TRANSFORMERS", ())
    monkeypatch.setattr(
        ResumableTrainer, "_load_rng_state", lambda self, checkpoint: None
    )  # so that the device's own state is all there is
    monkeypatch.setattr(torch, "get_device_module", lambda device: torch.random)
    model = BertForSequenceClassification(
        BertConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            vocab_size=99,
        )
    )
    trainer = RunTrainer(
        model=model,
        args=build_arguments({"bf16": False, "use_cpu": True}, checkpoints=tmp_path, seed=0),
    )
    trainer._save_rng_state(str(tmp_path))
    drawn = torch.rand(3)
    trainer._load_rng_state(str(tmp_path))
    assert torch.equal(torch.rand(3), drawn)
    assert (tmp_path / "cpu_rng_state_0.pt").is_file()


class Copies(TorchDispatchMode):
    """Counts copies between devices and types, and reads of single values."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += func.overloadpacket in (
            torch.ops.aten._to_copy,
            torch.ops.aten._local_scalar_dense,
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "logit_adjusted", "binary"])
def test_loss_of_a_later_step_copies_and_reads_nothing(name):
    options = {"logit_adjusted": {"log_prior_C": torch.zeros(3), "tau": 1.0}}.get(name, {})
    loss = step_loss((LOSSES | {"binary": binary_cross_entropy})[name], torch.ones(3), options)
    with torch.device("meta"):
        logits_NC = torch.empty(4, 3)
        targets = torch.empty(4, 3) if name == "binary" else torch.empty(4, dtype=torch.int64)
    outputs = type("Outputs", (), {"logits": logits_NC})
    loss(outputs, targets, torch.tensor(4))
    with Copies() as copies:
        loss(outputs, targets, torch.tensor(4))
    assert copies.number == 0

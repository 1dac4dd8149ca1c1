"""Steps that do not wait for an accelerator, played by torch's `meta` device.

Its tensors have no values: reading one, or copying it back to the CPU, raises.
"""

import numpy as np
import pytest
import torch
from accelerate import PartialState
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertForSequenceClassification

from trainer.data.tokens.tokenise import TokenisedRows
from trainer.launch import stopping
from trainer.training.arguments import build_arguments
from trainer.training.batches import packed_attention
from trainer.training.batches.batching import Collator
from trainer.training.run_trainer import RunTrainer

META = torch.device("meta")
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 99,
    "num_labels": 3,
}
STEPS = 2
PASSES = 2 * STEPS


class Tokenizer:
    pad_token_id = pad_token_type_id = 0
    padding_side = "right"

    def save_pretrained(self, *_):
        pass


class CopiesToDevice(TorchDispatchMode):
    """Counts copies of tensors from the CPU to the accelerator."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            source = args[-1] if func.overloadpacket is torch.ops.aten.copy_ else args[0]
            self.number += source.device.type == "cpu" and found.device.type == "meta"
        return found


def rows_of(count, *, multi_label=False):
    generator = np.random.default_rng(0)
    lengths = generator.integers(3, 20, count)
    label_ids = generator.integers(0, 3, count)
    return TokenisedRows(
        {"input_ids": generator.integers(5, 99, lengths.sum()).astype(np.int32)},
        np.r_[0, np.cumsum(lengths)],
        np.eye(3, dtype=bool)[label_ids] if multi_label else label_ids,
        np.zeros(count, bool),
    )


@pytest.fixture
def trained_on_meta(monkeypatch, tmp_path):
    """Function (options of RunTrainer) -> copies to the device while it trains STEPS steps."""

    def train(*, multi_label=False, **options):
        problem = "multi_label_classification" if multi_label else "single_label_classification"
        torch.manual_seed(0)
        model = BertForSequenceClassification(BertConfig(**SIZES, problem_type=problem))
        training = {
            "bf16": False,
            "use_cpu": True,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "max_steps": STEPS,
            "logging_strategy": "no",
            "save_strategy": "no",
            "optim": "sgd",
        }
        trainer = RunTrainer(
            model=model,
            args=build_arguments(training, checkpoints=tmp_path, seed=0),
            train_dataset=rows_of(16 * STEPS, multi_label=multi_label),
            data_collator=Collator(Tokenizer(), multiple=8),
            class_weights=np.array([0.5, 1.0, 1.5]),
            class_counts=np.array([30, 20, 10]),
            **options,
        )
        monkeypatch.setitem(PartialState._shared_state, "device", META)
        trainer.accelerator.state.device = META
        vars(trainer.args)["_setup_devices"] = META
        # the loss of the whole training is read once, at the end
        monkeypatch.setattr(RunTrainer, "_finalize_training", lambda *_: None)
        waits = []
        monkeypatch.setattr(
            torch.accelerator, "synchronize", lambda _: waits.append(trainer.state.global_step)
        )
        assert trainer.padded_because is None
        model.to(META)
        with CopiesToDevice() as copies:
            trainer.train()
        assert trainer.state.global_step == STEPS
        assert set(waits) <= {0, STEPS}
        return copies.number

    return train


@pytest.mark.parametrize(
    ("options", "constants"),
    [
        ({}, 1),
        ({"loss": "focal", "loss_settings": {"gamma": 2.0}}, 1),
        ({"loss": "logit_adjusted"}, 2),
        ({"multi_label": True}, 1),
    ],
    ids=["packed", "focal", "logit adjusted", "several labels"],
)
def test_step_reads_no_value_of_the_device_and_sends_a_pass_in_three_copies(
    trained_on_meta, options, constants
):
    # the inputs, the places of the rows, and what attention pads; weights and priors only once
    assert trained_on_meta(**options) == 3 * PASSES + constants


def test_attention_by_flash_kernels_needs_only_the_inputs_and_the_places_of_the_rows(
    trained_on_meta, monkeypatch
):
    fault = {"cpu": "no kernels"}  # the CPU tries whether the model can be packed
    monkeypatch.setattr(packed_attention, "flash_fault", lambda device, _: fault.get(device.type))
    assert trained_on_meta() == 2 * PASSES + 1


@pytest.mark.parametrize(("num_processes", "asked"), [(1, [1, 2, 3, 4, 5, 6, 7, 8]), (2, [4, 8])])
def test_several_processes_ask_each_other_for_a_stop_signal_after_every_fourth_step(
    monkeypatch, tmp_path, num_processes, asked
):
    model = BertForSequenceClassification(BertConfig(**SIZES))
    args = build_arguments({"bf16": False, "use_cpu": True}, checkpoints=tmp_path, seed=0)
    trainer = RunTrainer(model=model, args=args)
    found = []
    monkeypatch.setattr(type(args), "world_size", num_processes)
    monkeypatch.setattr(stopping, "agreed", lambda: found.append(trainer.state.global_step))
    for step in range(1, 9):
        trainer.state.global_step = step
        trainer._maybe_log_save_evaluate(torch.tensor(0.0), *[None] * 6)
    assert found == asked

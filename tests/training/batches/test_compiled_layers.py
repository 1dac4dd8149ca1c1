"""Compiled layers of a packed encoder: the same gradients, few compilations, clear errors."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from accelerate.utils import DynamoBackend
from test_packing import LENGTHS, PACKED, SIZES, batch_of, build, close, logits_and_gradients

from trainer.errors import ModelError
from trainer.training.arguments import build_arguments
from trainer.training.batches.compiled_layers import compile_layers
from trainer.training.batches.packing import pack
from trainer.training.device_trainer import pack_on_device
from trainer.training.models.cpu_layers import speed_up
from trainer.training.pass_trainer import PassTrainer


class CountingBackend:
    """Compiler that changes nothing, and counts compilations and calls of what it compiled."""

    def __init__(self):
        self.compilations = self.calls = 0

    def __call__(self, graph, inputs):
        self.compilations += 1

        def run(*args):
            self.calls += 1
            return graph.forward(*args)

        return run


def packed_in_training(kind, *, keep_dropout=False):
    """Return a model in training mode, always with the same weights."""
    model = build(*PACKED[kind]).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and not keep_dropout:
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    assert pack(model) is None
    return model


COMPILER = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler"),
]


@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        ("bert", "aot_eager"),
        pytest.param("modernbert", "aot_eager", marks=pytest.mark.exhaustive),
        pytest.param("distilbert", "aot_eager", marks=pytest.mark.exhaustive),
        pytest.param("llama", "aot_eager", marks=pytest.mark.exhaustive),
        pytest.param("bert", "inductor", marks=COMPILER),
        pytest.param("modernbert", "inductor", marks=COMPILER),
    ],
)
def test_compiled_layers_give_the_same_gradients(kind, backend):
    plain, compiled = packed_in_training(kind), packed_in_training(kind)
    compile_layers(compiled, torch.float32, backend=backend)
    same_gradients(plain, compiled)
    assert compiled.state_dict().keys() == plain.state_dict().keys()


def same_gradients(plain, compiled):
    for lengths in LENGTHS.values():
        batch = batch_of(lengths, plain)
        expected, expected_gradients = logits_and_gradients(plain, batch)
        found, gradients = logits_and_gradients(compiled, batch)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        close(gradients, expected_gradients)


def test_layers_are_compiled_once_for_all_shapes_and_not_used_in_evaluation():
    model, backend = packed_in_training("bert", keep_dropout=True), CountingBackend()
    assert speed_up(model, own_gradients=True) is None
    compile_layers(model, torch.float32, backend=backend)
    after_trial = backend.compilations
    assert 0 < after_trial < 8
    assert all(weight.grad is None for weight in model.parameters())
    for lengths in ([20, 20, 9], [31, 2, 2, 2], [12], [7, 6, 5, 4, 3, 2, 1]):
        calls = backend.calls
        logits_and_gradients(model, batch_of(lengths, model))
        assert backend.calls > calls
    assert backend.compilations == after_trial
    calls = backend.calls
    with torch.no_grad():
        model.eval()(**batch_of([20, 20, 9], model))
    assert backend.calls == calls


def test_dropout_of_compiled_layers_stays_on():
    model = packed_in_training("bert", keep_dropout=True)
    assert speed_up(model, own_gradients=True) is None
    compile_layers(model, torch.float32, backend="eager")
    batch = batch_of([9, 9, 4], model)
    first, second = (model(**batch).logits for _ in range(2))
    assert not torch.allclose(first, second)
    assert torch.equal(model.eval()(**batch).logits, model(**batch).logits)


def test_compiler_that_fails_is_told_in_words():
    def broken(graph, inputs):
        raise OSError("no C++ compiler found\nsecond line")

    model = packed_in_training("bert")
    words = r"the layers of BertForSequ.* cannot be compiled: OSError: no C\+\+ .* found\. Remove"
    with pytest.raises(ModelError, match=words):
        compile_layers(model, torch.float32, backend=broken)


def test_trial_of_the_compiler_uses_no_random_numbers():
    model = packed_in_training("bert", keep_dropout=True)
    before = torch.get_rng_state()
    compile_layers(model, torch.float32, backend="eager")
    assert torch.equal(torch.get_rng_state(), before)


def test_model_without_layers_to_compile_is_told():
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES | {"num_hidden_layers": 1})
    model = transformers.BertForSequenceClassification(config)
    assert pack(model) is None
    with pytest.raises(ModelError, match="has no layers that can be compiled"):
        compile_layers(model, torch.float32, backend="eager")


def trainer_of(model, **values):
    arguments = {"per_device_train_batch_size": 4, "max_steps": 1, "use_cpu": True, "bf16": False}
    return PassTrainer(
        model=model,
        args=build_arguments(arguments | values, checkpoints=Path("unused"), seed=0),
        class_weights=None,
    )


def test_trainer_compiles_layers_and_leaves_the_model_to_nobody_else():
    model = build(*PACKED["bert"])
    trainer = trainer_of(model, torch_compile=True, torch_compile_backend="eager")
    assert all("forward" in vars(layer) for layer in model.bert.encoder.layer)
    assert trainer.accelerator.state.dynamo_plugin.backend == DynamoBackend.NO
    assert trainer.args.torch_compile_backend == "eager"
    plain = trainer_of(build(*PACKED["bert"]))
    layers = plain.model.bert.encoder.layer
    assert ["forward" in vars(layer) for layer in layers] == [False, False, True]  # first tokens


@pytest.mark.parametrize(
    "given", [{"fsdp": "full_shard"}, {"deepspeed": "ds.json"}, {"gradient_checkpointing": True}]
)
def test_sharded_or_checkpointed_model_is_compiled_as_a_whole(given):
    plain = {"fsdp": None, "deepspeed": None, "gradient_checkpointing": False}
    arguments = SimpleNamespace(torch_compile=True, **plain | given)
    words = "training.torch_compile compiles a sharded or checkpointed model as a whole"
    assert pack_on_device(build(*PACKED["bert"]), arguments) == words

"""Compiled layers of a packed encoder: the same gradients, few compilations, clear errors."""

import shutil

import pytest
import torch
from test_packing import LENGTHS, PACKED, batch_of, build, close, logits_and_gradients

from trainer.errors import ModelError
from trainer.training.batches.compiled_layers import compile_layers
from trainer.training.batches.packing import pack
from trainer.training.models.cpu_layers import speed_up


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
        ("modernbert", "aot_eager"),
        pytest.param("distilbert", "aot_eager", marks=pytest.mark.exhaustive),
        pytest.param("llama", "aot_eager", marks=pytest.mark.exhaustive),
        pytest.param("bert", "inductor", marks=COMPILER),
        pytest.param("modernbert", "inductor", marks=COMPILER),
    ],
)
def test_compiled_layers_give_the_same_gradients(kind, backend):
    plain, compiled = packed_in_training(kind), packed_in_training(kind)
    compile_layers(compiled, torch.float32, backend=backend)
    for lengths in LENGTHS.values():
        batch = batch_of(lengths, plain)
        expected, expected_gradients = logits_and_gradients(plain, batch)
        found, gradients = logits_and_gradients(compiled, batch)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        close(gradients, expected_gradients)
    assert compiled.state_dict().keys() == plain.state_dict().keys()


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
    compile_layers(model, torch.float32, backend="aot_eager")
    batch = batch_of([9, 9, 4], model)
    first, second = (model(**batch).logits for _ in range(2))
    assert not torch.allclose(first, second)
    assert torch.equal(model.eval()(**batch).logits, model(**batch).logits)


def test_compiler_that_fails_is_told_in_words():
    def broken(graph, inputs):
        raise OSError("no C++ compiler found\nsecond line")

    model = packed_in_training("bert")
    with pytest.raises(ModelError, match=r"training\.torch_compile: the layers of Bert.*cannot be"):
        compile_layers(model, torch.float32, backend=broken)


def test_trial_of_the_compiler_uses_no_random_numbers():
    model = packed_in_training("bert", keep_dropout=True)
    before = torch.get_rng_state()
    compile_layers(model, torch.float32, backend="aot_eager")
    assert torch.equal(torch.get_rng_state(), before)

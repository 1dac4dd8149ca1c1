"""Every text architecture of transformers: trained in each mode, and the same in `pipeline()`."""

import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from architectures import ARCHITECTURES, NO_TEXT_ALONE, quietly, table_row, tiny_config

pytestmark = pytest.mark.slow

DOCUMENT = ROOT / "docs/reference/architectures.md"
SAMPLE = {"bart", "bert", "deberta-v2", "fnet", "gemma3", "gpt2", "ibert", "llama"}
SAMPLE |= {"mixtral", "reformer", "roberta", "t5", "xmod"}
"""Architectures that `make test` trains; `make test-exhaustive` trains the others."""


@pytest.mark.parametrize(
    "model_type",
    [
        pytest.param(name, marks=() if name in SAMPLE else pytest.mark.exhaustive)
        for name in ARCHITECTURES
    ],
)
def test_architecture_trains_in_each_mode_and_answers_as_its_pipeline_does(model_type):
    row = quietly(model_type)
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    assert table_row(model_type, row) in lines
    refused = {mode: told for mode, told in row.items() if mode != "batches" and told != "yes"}
    assert set(refused) <= {"lora", "head"}
    assert all(told.startswith("ModelError: model.mode ") for told in refused.values())


def test_table_names_every_text_classifier_of_transformers():
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    named = [line.split("`")[1] for line in lines if line.startswith("| `")]
    assert named == [*ARCHITECTURES, *NO_TEXT_ALONE]
    assert tiny_config("bert").num_hidden_layers == 2

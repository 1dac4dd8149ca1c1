"""Write a text classifier as an ONNX graph. Legend: B rows, L tokens, C labels.

torch.onnx writes the graph, since the exporters of optimum do not support transformers 5
(https://github.com/huggingface/optimum-onnx/issues/114).
"""

import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.delivery.predicting.onnx_runtime import OnnxModel, reason
from trainer.errors import ExportError

MOST_BYTES = 1 << 30
"""Larger weights are written to a file beside the graph: a protocol buffer holds at most 2 GiB."""

MOST_DIFFERENCE = 1e-4
"""A larger difference of probabilities in float32 is an error. Rounding gives about 1e-6 (MiniLM,
1,350 tweets)."""
MOST_ROUNDINGS = 4
"""So many times its own rounding a model may differ from its graph: a head that was fitted on a
frozen encoder can have weights above 1,000, which enlarge rounding."""
MOST_TRIED_TOKENS = 1_024
"""The memory of eager attention grows with the square of the tokens."""


class _Logits(nn.Module):
    """The model as a function of positional inputs that returns only the logits in float32."""

    def __init__(self, model: Any, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits.float()


def plain_copy(model: Any) -> Any:
    """Return the model without changes by training or prediction (attention, hooks), on the CPU.

    Eager attention gives a smaller graph than torch's own attention, which checks for rows without
    tokens. It is 1.06 times faster (MiniLM, 32 tweets, one core).
    """
    config = deepcopy(model.config)
    config._attn_implementation = "eager"
    plain = type(model)(config).float().eval()
    plain.load_state_dict(model.state_dict())
    return plain


def write_graph(model: Any, tokenizer: Any, path: Path, *, max_length: int) -> None:
    """Write the graph for any number of rows and tokens, and test it on several shapes.

    Args:
        model: from `plain_copy`.
        max_length: most tokens of a row.
    Raises:
        ExportError: torch cannot write the model as a graph, or the graph gives other answers.
    """
    example = tokenizer(["one", "two and some more words"], padding=True, return_tensors="pt")
    names = [
        name
        for name in tokenizer.model_input_names
        if name in inspect.signature(model.forward).parameters
    ]
    any_size = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    num_bytes = sum(parameter.numel() * 4 for parameter in model.parameters())
    try:
        with quiet():
            program: Any = torch.onnx.export(
                _Logits(model, names),
                tuple(example[name] for name in names),
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=(tuple(any_size for _ in names),),
                dynamo=True,
                verbose=False,
            )
            program.save(path, external_data=num_bytes > MOST_BYTES)
            difference = largest_difference(model, OnnxModel(path.parent), max_length)
    except Exception as error:  # the code of a model may raise anything while it is traced
        raise ExportError(
            f"{type(model).__name__} cannot be written as an ONNX graph: {reason(error)}"
            " Use the model folder itself."
        ) from error
    refuse_difference(difference, "on random tokens")


def refuse_difference(difference: float, where: str, rounding: float = 0.0) -> None:
    """Raise ExportError if the probabilities of a float32 graph and its model differ too much.

    Args:
        rounding: how much the model's own probabilities differ between equal computations.
    """
    allowed = max(MOST_DIFFERENCE, MOST_ROUNDINGS * rounding)
    if not difference <= allowed:
        raise ExportError(
            f"the graph gives other answers than its model: probabilities differ by up to"
            f" {difference:.2g} {where}; allowed: {allowed:.2g}."
            " Nothing was written. Use the model folder itself."
        )


def largest_difference(model: Any, graph: Any, max_length: int) -> float:
    """Return the largest difference of sigmoids, for batches of random tokens of several shapes.

    Args:
        model: from `plain_copy`.
        graph: OnnxModel or OpenVinoModel.
    """
    config, generator, worst = model.config.get_text_config(), torch.Generator().manual_seed(0), 0.0
    for num_rows, length in ((1, 1), (3, 7), (2, min(max_length, MOST_TRIED_TOKENS))):
        ids_BL = torch.randint(
            config.vocab_size // 2, config.vocab_size, (num_rows, length), generator=generator
        )
        mask_BL = (
            torch.arange(length)
            < torch.linspace(length, max(1, length // 2), num_rows).long()[:, None]
        )
        batch = {
            "input_ids": ids_BL.where(mask_BL, config.pad_token_id or 0),
            "attention_mask": mask_BL.long(),
            "token_type_ids": torch.zeros_like(ids_BL),
        }
        with torch.inference_mode():
            p_BC, q_BC = (
                each(**{name: batch[name] for name in graph.names}).logits.sigmoid()
                for each in (model, graph)
            )
        worst = max(worst, float((p_BC - q_BC).abs().max()))
    return worst


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress and the warnings of the exporter."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

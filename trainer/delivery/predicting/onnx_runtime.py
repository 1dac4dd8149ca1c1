"""Run an ONNX graph in place of a torch model. Legend: B rows, L tokens, C labels."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.delivery.predicting.graph_files import GRAPHS
from trainer.errors import ExportError, first_line
from trainer.extras import require

TOKENS_PER_PASS = 256
"""Tokens of a batch. Larger batches are no faster with ONNX Runtime, and padding costs time: with
2,048 tokens, 32 tweets take 1.6 to 2 times as long (MiniLM, one core)."""


class OnnxModel(nn.Module):
    """An ONNX graph in place of a torch model, run on the CPU with the number of torch's threads.

    Args:
        folder: the folder of `model.onnx`.
    Raises:
        MissingPackageError: onnxruntime is not installed.
        ExportError: onnxruntime cannot load the graph.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        path = folder / GRAPHS["onnx"]
        require("onnx", str(path), "onnxruntime")
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
        try:
            self.session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the errors of onnxruntime have no common class
            raise ExportError(
                f"{path}: cannot be loaded: {reason(error)} Export it again."
            ) from error
        self.names = [given.name for given in self.session.get_inputs()]

    def forward(self, **inputs: Tensor) -> Any:
        """Return an object with `logits` (B, C) in float32.

        Args:
            inputs: input_ids, attention_mask and the other outputs of the tokenizer, each (B, L).
        """
        from transformers.modeling_outputs import SequenceClassifierOutput

        given = {name: inputs[name].numpy() for name in self.names}
        try:
            logits_BC = self.session.run(["logits"], given)[0]
        except Exception as error:
            raise RuntimeError(f"the ONNX graph failed: {reason(error)}") from error
        return SequenceClassifierOutput(logits=torch.from_numpy(logits_BC))


def reason(error: BaseException) -> str:
    """Return the first cause in a sentence; the exporter's own text addresses authors of models."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return f"{type(error).__name__}: {first_line(ValueError(words))}"

"""Run an OpenVINO graph in place of a torch model. Legend: B rows, L tokens, C labels."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from trainer.delivery.predicting.graph_files import GRAPHS
from trainer.delivery.predicting.onnx_runtime import reason
from trainer.errors import ExportError
from trainer.extras import require

Result = TypeVar("Result")


def import_openvino() -> Any:
    """Return the module openvino, which would send usage statistics while it is imported.

    It sends them with the package openvino_telemetry, and does without it where it is missing.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # its import fails now
    import openvino

    return openvino


def in_own_thread(work: Callable[[], Result]) -> Result:
    """Return the result of a function that runs in a thread that ends with it.

    OpenVINO gives the thread in which a `Core` loads the CPU plugin a stack for signals, and frees
    it with the `Core` (https://github.com/openvinotoolkit/openvino/pull/11894). Where several were
    made and freed, the next signal that this thread handles would end the process. So the plugin is
    never loaded in a thread of the caller.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


class OpenVinoModel(nn.Module):
    """An OpenVINO graph in place of a torch model, run on the CPU with torch's number of threads.

    It computes in float32, also where the processor has bfloat16: otherwise labels would depend on
    the machine. Threads are not bound to cores, so that several processes share a machine.

    Args:
        folder: the folder of `openvino_model.xml` and `openvino_model.bin`.
    Raises:
        MissingPackageError: openvino is not installed.
        ExportError: OpenVINO cannot load the graph.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        path = folder / GRAPHS["openvino"]
        require("openvino", str(path), "openvino")
        openvino = import_openvino()
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        try:
            self.graph = in_own_thread(lambda: openvino.Core().compile_model(path, "CPU", options))
        except RuntimeError as error:
            raise ExportError(
                f"{path}: cannot be loaded: {reason(error)} Export it again."
            ) from error
        self.names = [given.get_any_name() for given in self.graph.inputs]

    def forward(self, **inputs: Tensor) -> Any:
        """Return an object with `logits` (B, C) in float32.

        Args:
            inputs: input_ids, attention_mask and the other outputs of the tokenizer, each (B, L).
        """
        from transformers.modeling_outputs import SequenceClassifierOutput

        request = self.graph.create_infer_request()  # one for each call, so that threads may share
        try:
            found = request.infer({name: inputs[name].numpy() for name in self.names})
        except RuntimeError as error:
            raise ExportError(f"the OpenVINO graph failed: {reason(error)}") from error
        return SequenceClassifierOutput(logits=torch.from_numpy(found["logits"].copy()))

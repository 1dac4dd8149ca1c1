"""Quantise a graph to 8 bits, and choose the layers that stay in float32.

Legend: T tokens, I inputs and O outputs of a layer.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainer.arrays import Array, Floats32
from trainer.delivery.export.onnx_writer import MOST_BYTES, quiet
from trainer.delivery.predicting.graph_files import GRAPHS
from trainer.delivery.predicting.onnx_runtime import reason
from trainer.delivery.predicting.openvino_runtime import import_openvino, in_own_thread
from trainer.delivery.predicting.texts import Text
from trainer.errors import ExportError

if TYPE_CHECKING:
    from trainer.delivery.predicting.saved_model import SavedModel

Feed = dict[str, Array]
"""The inputs of a graph for one text, each (1, T)."""

CALIBRATION_ROWS = 128
"""Rows on which the ranges of activations are measured."""
RANKED_ROWS = 32
"""Rows on which the error of each layer is measured."""
KEPT_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the layers that are left in float32, tried in this order after the last layer alone."""


def calibration_feeds(model: "SavedModel", texts: Sequence[Text], graph: Path) -> list[Feed]:
    """Return the inputs of an ONNX graph for some of the texts, drawn once for all formats."""
    import onnx

    names = [given.name for given in onnx.load(graph, load_external_data=False).graph.input]
    drawn = np.random.default_rng(0).permutation(len(texts))[:CALIBRATION_ROWS]
    rows = model.tokens([texts[n] for n in drawn])
    feeds = []
    for n in range(len(rows)):
        tensors = model.collate(rows.__getitems__([n]))
        feeds.append({name: tensors[name].numpy() for name in names})
    return feeds


def kept_layers(source: Path, feeds: Sequence[Feed]) -> Iterator[list[str]]:
    """Yield the names of the layers to leave in float32, each time more of them.

    The last layer, which gives the logits, is always among them: it takes no time, and a head that
    was fitted on a frozen encoder can have large weights, which enlarge each error.

    Args:
        source: ONNX graph in float32.
        feeds: inputs on which the layers are ranked if the first choice loses too much.
    """
    names = list(_weights(source))
    yield names[-1:]
    ranked = _ranked(source, feeds[:RANKED_ROWS])
    for share in KEPT_SHARES:
        worst = ranked[: max(1, round(share * len(ranked)))]
        yield [*dict.fromkeys([*worst, *names[-1:]])]


def _weights(source: Path) -> dict[str, tuple[str, Floats32]]:
    """Return {layer: (name of its input, weights (I, O))} of the linear layers, in order."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(source).graph
    constants = {each.name: each for each in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in constants:
            weights_IO = numpy_helper.to_array(constants[node.input[1]], str(source.parent))
            if any(each.name == "transB" and each.i for each in node.attribute):
                weights_IO = weights_IO.T
            if weights_IO.ndim == 2:
                found[node.name] = (node.input[0], weights_IO)
    return found


def _ranked(source: Path, feeds: Sequence[Feed]) -> list[str]:
    """Return the layers, the one whose output loses most in 8 bits first.

    The loss is the squared error as a share of the squared output, over all rows. Each layer gets
    its inputs of the float32 graph.
    """
    import onnx
    import onnxruntime  # type: ignore[import-untyped]

    layers = _weights(source)
    given = sorted({name for name, _ in layers.values()})
    graph = onnx.load(source, load_external_data=False)
    known = {each.name for each in graph.graph.output}
    graph.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in given if name not in known
    )
    opened = source.with_name("ranked.onnx")  # beside the file of its weights
    onnx.save(graph, opened)
    try:
        session = onnxruntime.InferenceSession(opened, providers=["CPUExecutionProvider"])
    except Exception as error:  # the errors of onnxruntime have no common class
        raise _refusal(error) from error
    opened.unlink()
    rounded = {name: _rounded(weights_IO, 0) for name, (_, weights_IO) in layers.items()}
    errors, sizes = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 1e-12)
    for feed in feeds:
        inputs = dict(zip(given, session.run(given, feed), strict=True))
        for name, (source_name, weights_IO) in layers.items():
            x_TI = inputs[source_name].reshape(-1, len(weights_IO))
            y_TO = x_TI @ weights_IO
            errors[name] += float(np.square(_rounded(x_TI, None) @ rounded[name] - y_TO).sum())
            sizes[name] += float(np.square(y_TO).sum())
    return sorted(layers, key=lambda name: -errors[name] / sizes[name])


def _rounded(values: Floats32, axis: int | None) -> Floats32:
    """Return values rounded to 8 bits, with one scale for each column (axis 0) or one for all."""
    scale = np.maximum(np.abs(values).max(axis=axis, keepdims=True), 1e-12) / 127
    return np.round(values / scale) * scale


def quantise_onnx(source: Path, folder: Path, kept: Sequence[str], _: Sequence[Feed]) -> None:
    """Write an ONNX graph with weights of 8 bits and one scale for each output channel.

    Activations are quantised at run time. Weights use 7 bits (`reduce_range`): otherwise sums
    overflow on CPUs without VNNI, and answers depend on the machine
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

    Args:
        source: graph in float32.
        folder: folder for `model.onnx`.
        kept: layers that stay in float32.
    Raises:
        ExportError: ONNX Runtime cannot quantise the graph.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]

    try:
        with quiet():
            graph = onnx.load(source)
            del graph.graph.value_info[:]  # old shapes, which the quantiser would misread
            quantize_dynamic(
                graph,
                folder / GRAPHS["onnx"],
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[*kept, *(f"{name}_MatMul" for name in kept)],  # was a Gemm
                use_external_data_format=graph.ByteSize() > MOST_BYTES,
            )
    except Exception as error:  # the errors of the quantiser have no common class
        raise _refusal(error) from error


def convert_openvino(source: Path, folder: Path) -> None:
    """Write an ONNX graph as an OpenVINO graph in float32.

    Raises:
        ExportError: OpenVINO cannot read the graph.
    """
    openvino = import_openvino()
    try:
        graph = openvino.Core().read_model(source)
    except RuntimeError as error:
        raise ExportError(
            f"OpenVINO cannot read the ONNX graph: {reason(error)} Use --format onnx."
        ) from error
    openvino.save_model(graph, folder / GRAPHS["openvino"], compress_to_fp16=False)


def quantise_openvino(
    source: Path, folder: Path, kept: Sequence[str], feeds: Sequence[Feed]
) -> None:
    """Write an OpenVINO graph with weights and activations of 8 bits, by nncf.

    The scales of activations are fixed; they are measured on `feeds`.

    Args:
        source: ONNX graph in float32.
        folder: folder for `openvino_model.xml` and `openvino_model.bin`.
        kept: layers that stay in float32.
        feeds: inputs for the calibration.
    Raises:
        ExportError: nncf cannot quantise the graph.
    """
    openvino = import_openvino()
    import nncf

    nncf.set_log_level(logging.ERROR)
    try:
        with quiet():
            graph = openvino.Core().read_model(source)
            names = [each.get_friendly_name() for each in graph.get_ops()]
            exempt = [name for name in names if name.removesuffix("/WithoutBiases") in kept]
            if missing := {*kept} - {name.removesuffix("/WithoutBiases") for name in exempt}:
                raise ValueError(f"OpenVINO has no layer {min(missing)}, which stays in float32.")
            quantised = in_own_thread(
                lambda: nncf.quantize(
                    graph,
                    nncf.Dataset(feeds),
                    model_type=nncf.ModelType.TRANSFORMER,
                    subset_size=len(feeds),
                    ignored_scope=nncf.IgnoredScope(names=exempt),
                )
            )
    except Exception as error:  # the errors of nncf and OpenVINO have no common class
        raise _refusal(error) from error
    openvino.save_model(quantised, folder / GRAPHS["openvino"], compress_to_fp16=False)


def _refusal(error: Exception) -> ExportError:
    return ExportError(f"the graph cannot be quantised: {reason(error)} Leave out --int8.")


QUANTISERS = {"onnx": quantise_onnx, "openvino": quantise_openvino}

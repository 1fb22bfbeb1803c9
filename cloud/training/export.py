"""Export of a screener to an ONNX graph with a dynamic batch."""

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from cloud.training.screeners import ScreenerModule, SeriesViews, VectorScreener
from shared.garbage import collection_paused

INPUT_NAME = "input"
TRACED_OPSET = 20


def export_onnx(screener: ScreenerModule | SeriesViews) -> bytes:
    """Return the ONNX model. Its input is `input`; its outputs are `score` and, for images, `anomaly_map`.

    The output of an input stage of views is `graph_inputs`. The batch size is free; all other sizes are fixed.
    """
    temporary = tempfile.TemporaryDirectory(prefix="vedette-export-")
    with temporary as folder, warnings.catch_warnings(), _Quiet(), collection_paused():
        warnings.simplefilter("ignore")
        path = Path(folder) / "screener.onnx"
        _trace(screener, path)
        return path.read_bytes() if isinstance(screener, VectorScreener | SeriesViews) else _simplified(path)


def _trace(module: ScreenerModule | SeriesViews, path: Path) -> None:
    """Write the ONNX model of a module, recorded while it computes an example.

    A trace fixes the numbers that a module makes of sizes; no module makes one of the batch size. It takes 0.01 to
    0.4 s of processor time, the capture of a graph by `torch.export` 3 to 4 s.
    """
    torch.onnx.export(
        module,
        (module.example(),),
        path,
        dynamo=False,
        input_names=[INPUT_NAME],
        output_names=list(module.output_names),
        dynamic_axes={name: {0: "batch"} for name in (INPUT_NAME, *module.output_names)},
        opset_version=TRACED_OPSET,
    )


def _simplified(path: Path) -> bytes:
    """Return a model with constants computed, and with the padding before a convolution as part of it."""
    import onnx
    import onnxruntime

    options, target = onnxruntime.SessionOptions(), path.with_name("simplified.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.intra_op_num_threads = 1
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    model = onnx.load(target)
    _join_padding(model.graph)
    standard = [entry for entry in model.opset_import if entry.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(standard)
    simplified: bytes = model.SerializeToString()
    return simplified


def _join_padding(graph: Any) -> None:
    """Join each padding of rows and columns with zeros to the convolution that reads it alone, in place."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for padding in [node for node in graph.node if node.op_type == "Pad"]:
        readers = [node for node in graph.node if padding.output[0] in node.input]
        sizes, *values = [constants.get(name) for name in padding.input[1:] if name]
        if len(readers) != 1 or readers[0].op_type != "Conv" or sizes is None or None in values:
            continue
        own = next((attribute for attribute in readers[0].attribute if attribute.name == "pads"), None)
        before, after = numpy_helper.to_array(sizes).reshape(2, -1)
        is_other = any(attribute.name == "mode" and attribute.s != b"constant" for attribute in padding.attribute)
        if is_other or own is None or len(before) != 4 or any((*before[:2], *after[:2])):
            continue
        if any(numpy_helper.to_array(value).any() for value in values):
            continue
        own.ints[:] = [mine + int(added) for mine, added in zip(own.ints, (*before[2:], *after[2:]), strict=True)]
        readers[0].input[0] = padding.input[0]
        graph.node.remove(padding)
    used = {name for node in graph.node for name in node.input}
    for name in constants.keys() - used:
        graph.initializer.remove(constants[name])


class _Quiet:
    """Context without the exporter's log lines."""

    _logger = logging.getLogger("torch.onnx")

    def __enter__(self) -> None:
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(self._level)

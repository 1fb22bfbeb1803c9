"""Export of a screener to an ONNX graph with a dynamic batch."""

import logging
import tempfile
import warnings
from pathlib import Path

import torch

from cloud.training.screeners import ScreenerModule, SeriesViews, VectorScreener
from shared.bundle import MAX_BATCH_SIZE
from shared.garbage import collection_paused

INPUT_NAME = "input"
TRACED_OPSET = 20


def export_onnx(screener: ScreenerModule | SeriesViews) -> bytes:
    """Return the ONNX model. Its input is `input`; its outputs are `score` and, for images, `anomaly_map`.

    The output of an input stage of views is `graph_inputs`.
    """
    export = _trace if isinstance(screener, VectorScreener | SeriesViews) else _capture
    temporary = tempfile.TemporaryDirectory(prefix="vedette-export-")
    with temporary as folder, warnings.catch_warnings(), _Quiet(), collection_paused():
        warnings.simplefilter("ignore")
        path = Path(folder) / "screener.onnx"
        export(screener, path)
        return path.read_bytes()


def _trace(module: ScreenerModule | SeriesViews, path: Path) -> None:
    """Write the ONNX model of a module of vectors, recorded while it computes an example.

    A trace fixes the sizes that a module reads of its input; modules of vectors read none. The trace takes 0.01 to
    0.1 s of processor time, the capture of a graph 3 s, or 0.7 s from the second export of a process on.
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


def _capture(module: ScreenerModule | SeriesViews, path: Path) -> None:
    """Write the ONNX model of a module of images or clips, captured with a symbolic batch size."""
    # The example has two rows, because the exporter would fix a batch size of one.
    torch.onnx.export(
        module,
        (module.example(),),
        path,
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=[INPUT_NAME],
        output_names=list(module.output_names),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=MAX_BATCH_SIZE)},),
    )


class _Quiet:
    """Context without the exporter's log lines."""

    _names = ("torch.onnx", "onnxscript", "onnx_ir")

    def __enter__(self) -> None:
        self._levels = {name: logging.getLogger(name).level for name in self._names}
        for name in self._names:
            logging.getLogger(name).setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)

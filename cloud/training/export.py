"""Export of a screener to an ONNX graph with a dynamic batch."""

import logging
import tempfile
import warnings
from pathlib import Path

import torch

from cloud.training.screeners import ScreenerModule, SeriesViews
from shared.bundle import MAX_BATCH_SIZE

INPUT_NAME = "input"


def export_onnx(screener: ScreenerModule | SeriesViews) -> bytes:
    """Return the ONNX model. Its input is `input`; its outputs are `score` and, for images, `anomaly_map`.

    The output of a front of views is `graph_inputs`.
    """
    example = screener.example()
    # The example has two rows, because the exporter would fix a batch size of one.
    with tempfile.TemporaryDirectory(prefix="vedette-export-") as folder, warnings.catch_warnings(), _Quiet():
        warnings.simplefilter("ignore")
        path = Path(folder) / "screener.onnx"
        torch.onnx.export(
            screener,
            (example,),
            path,
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=[INPUT_NAME],
            output_names=list(screener.output_names),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=MAX_BATCH_SIZE)},),
        )
        return path.read_bytes()


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

"""Outputs of the FP32 torch model, which the parity gate compares every artefact with."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cloud.training.screeners import ScreenerModule, SeriesScreener
from shared.engines import GraphOutput, join_outputs

_MAX_BATCH_BYTES, _MAX_BATCH_SAMPLES = 3 * 2**19, 512


def run_reference(screener: ScreenerModule | SeriesScreener, inputs: NDArray[Any]) -> GraphOutput:
    """Return the outputs of the FP32 module for engine inputs (n, ...), in batches of bounded memory."""
    size = max(1, min(_MAX_BATCH_SAMPLES, _MAX_BATCH_BYTES // max(1, inputs[:1].nbytes)))
    return join_outputs([_run(screener, inputs[start : start + size]) for start in range(0, len(inputs), size)])


def _run(screener: ScreenerModule | SeriesScreener, batch: NDArray[Any]) -> GraphOutput:
    with torch.inference_mode():
        outputs = screener(torch.from_numpy(np.ascontiguousarray(batch)))
    found = outputs if isinstance(outputs, tuple) else (outputs,)
    by_name = {name: tensor.numpy() for name, tensor in zip(screener.output_names, found, strict=True)}
    return GraphOutput(by_name["score"], by_name.get("anomaly_map"))

"""Outputs of a graph for any number of samples, computed as a device computes them."""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.engines.base import Engine, GraphOutput, Pending

MAX_BATCH_BYTES = 3 * 2**19  # eight images of 256 x 256 pixels
MAX_BATCH_SAMPLES = 4096


def run_graph(engine: Engine, inputs: NDArray[Any]) -> GraphOutput:
    """Return the outputs for all `inputs` (n, ...), in batches of bounded memory.

    Scores do not depend on how the samples are batched.

    Raises:
        EngineError: The engine failed on a batch.
    """
    batch_size = _batch_size(inputs)
    in_progress: deque[Pending] = deque()
    outputs: list[GraphOutput] = []
    for start in range(0, len(inputs), batch_size):
        if len(in_progress) == engine.depth:
            outputs.append(in_progress.popleft().result())
        in_progress.append(engine.start(inputs[start : start + batch_size]))
    outputs += [pending.result() for pending in in_progress]
    return join_outputs(outputs)


def join_outputs(outputs: list[GraphOutput]) -> GraphOutput:
    """Return the outputs of consecutive batches as one."""
    if not outputs:
        return GraphOutput(np.empty(0, np.float32), None)
    maps = [output.maps for output in outputs if output.maps is not None]
    return GraphOutput(np.concatenate([output.scores for output in outputs]), np.concatenate(maps) if maps else None)


def _batch_size(inputs: NDArray[Any]) -> int:
    sample_bytes = max(1, inputs[:1].nbytes)
    return max(1, min(MAX_BATCH_SAMPLES, MAX_BATCH_BYTES // sample_bytes))

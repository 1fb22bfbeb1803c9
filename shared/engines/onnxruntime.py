"""ONNX Runtime on the CPU: one thread per core, each of which computes whole pieces of a batch.

This uses the cores better than sharing every matrix product among them, where fast threads wait for slow ones after
each product.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.engines.base import ANOMALY_MAP, DEPTH, SCORE, GraphOutput
from shared.engines.configuration import EngineConfiguration
from shared.errors import EngineError, MissingExtraError


class OnnxRuntimeEngine:
    """Engine with one session that all threads share."""

    name = "onnxruntime"
    depth = DEPTH

    def __init__(self, graph: bytes, configuration: EngineConfiguration) -> None:
        """Load an ONNX `graph`.

        Raises:
            EngineError: ONNX Runtime refuses the graph.
        """
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError("This bundle runs on ONNX Runtime: pip install 'vedette[edge]'.") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1  # for each of our threads
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class
            raise EngineError(f"ONNX Runtime refuses the graph: {str(error)[:300]}. Try another artefact.") from None
        known = [output.name for output in self._session.get_outputs()]
        if SCORE not in known:
            raise EngineError(f"The graph has no output {SCORE!r} but {', '.join(known)}: not a screener graph.")
        self._names = [name for name in (SCORE, ANOMALY_MAP) if name in known]
        graph_input = self._session.get_inputs()[0]
        self._input_name = graph_input.name
        self.input_shape = tuple(size if isinstance(size, int) else -1 for size in graph_input.shape)
        self._threads, self._pieces = configuration.thread_count, configuration.pieces
        self._workers = ThreadPoolExecutor(self._threads, thread_name_prefix="onnxruntime")

    def start(self, inputs: NDArray[Any]) -> "_OnnxRuntimePending":
        """Start on a batch; see `Engine.start`."""
        pieces = self._pieces.cut(inputs, self._threads)
        return _OnnxRuntimePending([self._workers.submit(self._run, piece) for piece in pieces], len(inputs))

    def _run(self, piece: NDArray[Any]) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = self._session.run(self._names, {self._input_name: piece})
        return outputs


class _OnnxRuntimePending:
    def __init__(self, futures: "Sequence[Future[list[NDArray[Any]]]]", count: int) -> None:
        self._futures, self._count = futures, count

    def result(self) -> GraphOutput:
        """Wait for all pieces, also after a failure, so that no work on the batch continues, and return the outputs."""
        wait(self._futures)
        try:
            parts = [future.result() for future in self._futures]
        except Exception as error:  # its exceptions share no base class
            raise EngineError(f"ONNX Runtime failed on a batch: {str(error)[:300]}.") from None
        scores, *maps = parts[0] if len(parts) == 1 else [np.concatenate(of_one) for of_one in zip(*parts, strict=True)]
        scores = scores[: self._count].astype(np.float32, copy=False)
        return GraphOutput(scores, maps[0][: self._count] if maps else None)

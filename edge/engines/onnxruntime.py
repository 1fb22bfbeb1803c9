"""ONNX Runtime on the CPU. A batch runs on a helper thread, piece by piece, while Python works on the next one."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.engines.base import ANOMALY_MAP, SCORE, GraphOutput
from edge.engines.pieces import piece_size
from shared.errors import EngineError, MissingExtraError


class OnnxRuntimeEngine:
    """A session on all cores, with `depth` 2: one batch computes while the next is prepared."""

    name = "onnxruntime"

    def __init__(self, graph: bytes) -> None:
        """Load an ONNX `graph`. Raises EngineError if the runtime refuses it."""
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError("This bundle runs on ONNX Runtime: pip install 'vedette[edge]'.") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Spinning threads win microseconds a call and cost a core all day.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class
            raise EngineError(f"ONNX Runtime refuses the graph: {str(error)[:300]}. Try another artefact.") from None
        known = [output.name for output in self._session.get_outputs()]
        if SCORE not in known:
            raise EngineError(f"The graph has no output {SCORE!r} but {', '.join(known)}: it is no screener.")
        self._names = [name for name in (SCORE, ANOMALY_MAP) if name in known]
        graph_input = self._session.get_inputs()[0]
        self._input_name = graph_input.name
        self.input_shape = tuple(size if isinstance(size, int) else -1 for size in graph_input.shape)
        self.depth = 2
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="onnxruntime")

    def start(self, inputs: NDArray[Any]) -> "_OnnxRuntimePending":
        """Start on a batch; see `Engine.start`."""
        return _OnnxRuntimePending(self._worker.submit(self._run, inputs))

    def _run(self, inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """The outputs for a batch; all cores compute each piece of it together."""
        size = piece_size(inputs.shape, streams=1)
        parts = [
            self._session.run(self._names, {self._input_name: inputs[start : start + size]})
            for start in range(0, len(inputs), size)
        ]
        return parts[0] if len(parts) == 1 else [np.concatenate(of_one) for of_one in zip(*parts, strict=True)]


class _OnnxRuntimePending:
    def __init__(self, future: "Future[list[NDArray[Any]]]") -> None:
        self._future = future

    def result(self) -> GraphOutput:
        """Wait for the outputs."""
        try:
            outputs = self._future.result()
        except Exception as error:  # its exceptions share no base class
            raise EngineError(f"ONNX Runtime failed on a batch: {str(error)[:300]}.") from None
        return GraphOutput(outputs[0].astype(np.float32, copy=False), outputs[1] if len(outputs) > 1 else None)

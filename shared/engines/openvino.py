"""OpenVINO on the CPU: a stream for each core or so, asynchronous requests, compiled models cached on disk.

A batch is cut into pieces (`pieces`), so that all streams work on it.
"""

import contextlib
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.engines.base import ANOMALY_MAP, DEPTH, SCORE, GraphOutput
from shared.engines.pieces import most_images, piece_size
from shared.errors import EngineError, MissingExtraError

# OpenVINO's package loads it if it can. An agent converts no models, and saves 7 MiB and a tenth of its start.
_CONVERTER = "openvino.tools.ovc"


class OpenVinoEngine:
    """A graph compiled for throughput."""

    name = "openvino"
    depth = DEPTH

    def __init__(self, graph: bytes, weights: bytes | None, cache_folder: Path) -> None:
        """Compile `graph` (OpenVINO IR with `weights`, or ONNX without). Raises EngineError if that fails."""
        core = _core()
        options = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": "f32",  # without it the CPU may silently compute in bf16
            "CACHE_DIR": str(cache_folder),
        }
        try:
            cache_folder.mkdir(parents=True, exist_ok=True)
            model = core.read_model(graph, weights if weights is not None else b"")
            _fix_single_images(model)
            self._compiled = core.compile_model(model, "CPU", options)
            self._outputs = _output_positions(self._compiled)
            self.input_shape = _shape(self._compiled.input(0).partial_shape)
            self._streams = int(self._compiled.get_property("NUM_STREAMS"))
        except (RuntimeError, OSError) as error:
            raise EngineError(f"OpenVINO refuses the graph: {_first_line(error)}. Try another artefact.") from None
        self._free: list[Any] = []

    def start(self, inputs: NDArray[Any]) -> "_OpenVinoPending":
        """Start on a batch; see `Engine.start`."""
        inputs = np.ascontiguousarray(inputs)
        size = piece_size(inputs.shape, self._streams)
        requests: list[Any] = []
        try:
            for start in range(0, len(inputs), size):
                requests.append(self._free.pop() if self._free else self._compiled.create_infer_request())
                requests[-1].start_async({0: inputs[start : start + size]}, share_inputs=True)
        except RuntimeError as error:
            _wait_for(requests[:-1])
            raise EngineError(f"OpenVINO refuses a batch of shape {inputs.shape}: {_first_line(error)}.") from None
        return _OpenVinoPending(requests, inputs, self._outputs, self._free)


class _OpenVinoPending:
    """`inputs` is held here, since the requests read it in place. They go back to `free` when they are done."""

    def __init__(self, requests: list[Any], inputs: NDArray[Any], outputs: dict[str, int], free: list[Any]) -> None:
        self._requests, self._inputs, self._outputs, self._free = requests, inputs, outputs, free

    def result(self) -> GraphOutput:
        """Wait, and copy the outputs out of the requests."""
        error = _wait_for(self._requests)
        if error is not None:
            raise EngineError(f"OpenVINO failed on a batch: {_first_line(error)}.")
        scores = self._read(SCORE)
        maps = self._read(ANOMALY_MAP) if ANOMALY_MAP in self._outputs else None
        self._free += self._requests
        return GraphOutput(scores, maps)

    def _read(self, name: str) -> NDArray[np.float32]:
        position = self._outputs[name]
        parts: Sequence[NDArray[Any]] = [request.get_output_tensor(position).data for request in self._requests]
        if len(parts) == 1:
            return np.array(parts[0], dtype=np.float32)  # a copy: the request's own memory is used again
        joined: NDArray[np.float32] = np.concatenate(parts).astype(np.float32, copy=False)
        return joined


def _wait_for(requests: Sequence[Any]) -> RuntimeError | None:
    """Wait for each, also after one failed, since the rest still read the inputs' memory; returns the first error."""
    first: RuntimeError | None = None
    for request in requests:
        try:
            request.wait()
        except RuntimeError as error:
            first = first or error
    return first


@functools.cache
def _core() -> Any:
    """The process's one runtime, which is never given back.

    Where the processor has AMX, its CPU plugin gives the thread that loads it a signal stack, and takes that stack's
    memory away when it is unloaded: on another thread, and the next signal to the first ends the process.
    """
    with _without(_CONVERTER):
        try:
            import openvino
        except ImportError:
            raise MissingExtraError("This bundle runs on OpenVINO: pip install 'vedette[edge]'.") from None
    return openvino.Core()


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Let an import of that module fail for a while, unless it is loaded already."""
    modules: dict[str, Any] = sys.modules
    if module in modules:
        yield
        return
    modules[module] = None
    try:
        yield
    finally:
        del modules[module]


def _fix_single_images(model: Any) -> None:
    """Let a graph that is given one image at a time anyway take just that: less memory, and a tenth less time."""
    graph_input = model.input(0)
    _, *sample = _shape(graph_input.partial_shape)
    if len(sample) > 1 and min(sample) > 0 and most_images(sample) == 1:
        model.reshape({graph_input: [1, *sample]})


def _output_positions(compiled: Any) -> dict[str, int]:
    names = {name: position for position, port in enumerate(compiled.outputs) for name in port.names}
    if SCORE not in names:
        raise EngineError(f"The graph has no output {SCORE!r} but {', '.join(sorted(names))}: it is no screener.")
    return {name: names[name] for name in (SCORE, ANOMALY_MAP) if name in names}


def _shape(partial_shape: Any) -> tuple[int, ...]:
    return tuple(-1 if size.is_dynamic else size.get_length() for size in partial_shape)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__

"""OpenVINO on the CPU: parallel streams, asynchronous requests, compiled models cached on disk.

A batch is cut into pieces (`pieces`), so that all streams work on it.
"""

import contextlib
import functools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.engines.base import ANOMALY_MAP, DEPTH, SCORE, GraphOutput
from shared.engines.configuration import EngineConfiguration
from shared.engines.pieces import PieceSizes
from shared.errors import EngineError, MissingExtraError

# OpenVINO imports it if installed. An agent converts no models; without it, start takes a tenth less and 7 MiB less.
_CONVERTER = "openvino.tools.ovc"


class OpenVinoEngine:
    """A graph compiled for throughput."""

    name = "openvino"
    depth = DEPTH

    def __init__(self, graph: bytes, weights: bytes | None, configuration: EngineConfiguration) -> None:
        """Compile `graph` (OpenVINO IR with `weights`, or ONNX without).

        Raises:
            EngineError: OpenVINO refuses the graph.
        """
        core = _core()
        self._pieces = configuration.pieces
        try:
            if configuration.cache_folder is not None:
                configuration.cache_folder.mkdir(parents=True, exist_ok=True)
            model = core.read_model(graph, weights if weights is not None else b"")
            _fix_single_images(model, self._pieces)
            self._compiled = core.compile_model(model, "CPU", _options(configuration))
            self._outputs = _output_positions(self._compiled)
            self.input_shape = _shape(self._compiled.input(0).partial_shape)
            self._streams = int(self._compiled.get_property("NUM_STREAMS"))
        except (RuntimeError, OSError) as error:
            raise EngineError(f"OpenVINO refuses the graph: {_first_line(error)}. Try another artefact.") from None
        self._free: list[Any] = []

    def start(self, inputs: NDArray[Any]) -> "_OpenVinoPending":
        """Start on a batch; see `Engine.start`."""
        inputs = np.ascontiguousarray(inputs)
        pieces = self._pieces.cut(inputs, self._streams)
        requests: list[Any] = []
        try:
            for piece in pieces:
                requests.append(self._free.pop() if self._free else self._compiled.create_infer_request())
                requests[-1].start_async({0: piece}, share_inputs=True)
        except RuntimeError as error:
            _wait_for(requests[:-1])
            raise EngineError(f"OpenVINO refuses a batch of shape {inputs.shape}: {_first_line(error)}.") from None
        return _OpenVinoPending(requests, pieces, len(inputs), self._outputs, self._free)


class _OpenVinoPending:
    """A batch in progress.

    It holds the `pieces`, because the requests read them in place. The requests return to `free` when they are done.
    """

    def __init__(
        self,
        requests: list[Any],
        pieces: list[NDArray[Any]],
        count: int,
        outputs: dict[str, int],
        free: list[Any],
    ) -> None:
        self._requests, self._pieces, self._count = requests, pieces, count
        self._outputs, self._free = outputs, free

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
            return np.array(parts[0][: self._count], dtype=np.float32)  # a copy, because the request reuses its memory
        joined: NDArray[np.float32] = np.concatenate(parts)[: self._count].astype(np.float32, copy=False)
        return joined


def _wait_for(requests: Sequence[Any]) -> RuntimeError | None:
    """Wait for all requests, which read the inputs' memory, and return the first error."""
    first: RuntimeError | None = None
    for request in requests:
        try:
            request.wait()
        except RuntimeError as error:
            first = first or error
    return first


@functools.cache
def _core() -> Any:
    """Return the runtime of this process, which is never unloaded.

    On processors with AMX, the CPU plugin allocates a signal stack for the thread that loads it and frees that memory
    when it is unloaded. If another thread unloads it, the next signal to the first thread kills the process.
    """
    with _without(_CONVERTER):
        try:
            import openvino
        except ImportError:
            raise MissingExtraError("This bundle runs on OpenVINO: pip install 'vedette[edge]'.") from None
    return openvino.Core()


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Make imports of that module fail within the context, unless it is already loaded."""
    modules: dict[str, Any] = sys.modules
    if module in modules:
        yield
        return
    modules[module] = None
    try:
        yield
    finally:
        del modules[module]


def _options(configuration: EngineConfiguration) -> dict[str, str]:
    """Return the properties to compile with; threads and streams are OpenVINO's choice unless configured."""
    options = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": configuration.precision}
    if configuration.cache_folder is not None:
        options["CACHE_DIR"] = str(configuration.cache_folder)
    if configuration.threads is not None:
        options["INFERENCE_NUM_THREADS"] = str(configuration.threads)
    if configuration.streams is not None:
        options["NUM_STREAMS"] = str(configuration.streams)
    return options


def _fix_single_images(model: Any, pieces: PieceSizes) -> None:
    """Fix the batch size of a graph to 1 if its pieces hold one image: less memory, and a tenth less time."""
    graph_input = model.input(0)
    _, *sample = _shape(graph_input.partial_shape)
    if len(sample) > 1 and min(sample) > 0 and pieces.max_images(sample) == 1:
        model.reshape({graph_input: [1, *sample]})


def _output_positions(compiled: Any) -> dict[str, int]:
    names = {name: position for position, port in enumerate(compiled.outputs) for name in port.names}
    if SCORE not in names:
        raise EngineError(f"The graph has no output {SCORE!r} but {', '.join(sorted(names))}: not a screener graph.")
    return {name: names[name] for name in (SCORE, ANOMALY_MAP) if name in names}


def _shape(partial_shape: Any) -> tuple[int, ...]:
    return tuple(-1 if size.is_dynamic else size.get_length() for size in partial_shape)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__

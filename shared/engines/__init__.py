"""Inference engines, which run the graphs of a bundle on the CPU.

All graphs run through this package with one configuration: on devices, for calibration, in the parity gate, in
`vedette evaluate` and `vedette score`, and in benchmarks. A new engine is a module with a class like the others and a
line in `_ENGINES`.
"""

from collections.abc import Callable

from shared.bundle import Bundle
from shared.engines.base import Engine, GraphOutput, Pending
from shared.engines.configuration import EngineConfiguration
from shared.engines.scoring import join_outputs, run_graph
from shared.errors import EngineError

__all__ = [
    "Engine",
    "EngineConfiguration",
    "GraphOutput",
    "Pending",
    "join_outputs",
    "load_engine",
    "open_graph",
    "run_graph",
    "weights_path",
]


def _openvino(graph: bytes, weights: bytes | None, configuration: EngineConfiguration) -> Engine:
    from shared.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(graph, weights, configuration)


def _onnxruntime(graph: bytes, weights: bytes | None, configuration: EngineConfiguration) -> Engine:
    from shared.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(graph, configuration)


_ENGINES: dict[str, Callable[[bytes, bytes | None, EngineConfiguration], Engine]] = {
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
}


def load_engine(bundle: Bundle, artefact_name: str, configuration: EngineConfiguration) -> Engine:
    """Return the engine of an artefact with its graph loaded.

    Raises:
        BundleMismatchError: The bundle has no such artefact.
        EngineError: The engine is unknown or refuses the graph.
        MissingExtraError: The engine is not installed.
    """
    artefact = bundle.manifest.artefact(artefact_name)
    path = weights_path(artefact.graph)
    weights = bundle.read(path) if path is not None else None
    return open_graph(artefact.engine, bundle.read(artefact.graph), weights, configuration)


def open_graph(engine: str, graph: bytes, weights: bytes | None, configuration: EngineConfiguration) -> Engine:
    """Return the engine with the `graph` loaded.

    Args:
        engine: Name of the engine.
        graph: ONNX model, or the ".xml" of an OpenVINO IR.
        weights: The ".bin" of an OpenVINO IR, or None.
        configuration: Threads, precision and cache.

    Raises:
        EngineError: The engine is unknown or refuses the graph.
        MissingExtraError: The engine is not installed.
    """
    if engine not in _ENGINES:
        raise EngineError(f"Unknown engine {engine!r}; known: {', '.join(_ENGINES)}. Update Vedette.")
    return _ENGINES[engine](graph, weights, configuration)


def weights_path(graph_path: str) -> str | None:
    """Return the path of the weights of a graph, or None where the graph holds them itself."""
    return graph_path.removesuffix(".xml") + ".bin" if graph_path.endswith(".xml") else None

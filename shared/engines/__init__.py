"""Inference engines. Adding one is a module with a class like the others and a line in `_ENGINES`."""

from collections.abc import Callable
from pathlib import Path

from shared.bundle import Bundle
from shared.engines.base import Engine, GraphOutput, Pending
from shared.errors import EngineError

__all__ = ["Engine", "GraphOutput", "Pending", "engine_of", "load_engine", "weights_path"]


def _openvino(graph: bytes, weights: bytes | None, cache_folder: Path) -> Engine:
    from shared.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(graph, weights, cache_folder)


def _onnxruntime(graph: bytes, weights: bytes | None, cache_folder: Path) -> Engine:
    from shared.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(graph)


_ENGINES: dict[str, Callable[[bytes, bytes | None, Path], Engine]] = {
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
}


def load_engine(bundle: Bundle, artefact_name: str, cache_folder: Path) -> Engine:
    """The engine an artefact is made for, with its graph loaded and ready to run.

    Raises BundleMismatchError if the bundle has no such artefact, EngineError if the engine is unknown, not installed,
    or refuses the graph.
    """
    artefact = bundle.manifest.artefact(artefact_name)
    open_engine = engine_of(artefact.engine)
    path = weights_path(artefact.graph)
    return open_engine(bundle.read(artefact.graph), bundle.read(path) if path is not None else None, cache_folder)


def engine_of(name: str) -> Callable[[bytes, bytes | None, Path], Engine]:
    """What makes an engine of a graph, its weights if they are apart, and a folder for compiled models.

    Raises EngineError if it is unknown.
    """
    if name not in _ENGINES:
        raise EngineError(f"Engine {name!r} is unknown here; known are {', '.join(_ENGINES)}. Update Vedette.")
    return _ENGINES[name]


def weights_path(graph_path: str) -> str | None:
    """Where the weights of a graph lie that does not hold them itself."""
    return graph_path.removesuffix(".xml") + ".bin" if graph_path.endswith(".xml") else None

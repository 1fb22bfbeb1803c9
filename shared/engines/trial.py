"""Measurement of how fast engines run graphs on this machine: `python -m shared.engines.trial`.

It runs in a process of its own, so that an agent's memory holds only the engine that it uses. Standard input is a JSON
object: `graphs` (name, engine, paths of graph and weights), `configuration`, `shape` and `dtype` of a batch. Standard
output is a JSON object: for each name, the milliseconds per batch, or the reason why the graph does not run.
"""

import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from shared.bundle import Bundle
from shared.child_process import JsonLinesProcess, serve_json_lines
from shared.engines import EngineConfiguration, open_graph, weights_path
from shared.errors import NoAnswerError
from shared.logs import EventLog
from shared.modalities import sample_type

MIN_RUNS, MIN_SECONDS = 5, 0.3
MAX_VALUES = 2**22  # of a batch of images
TIMEOUT_S = 120.0

log = EventLog("engines")


def measure(bundle: Bundle, batch_size: int, configuration: EngineConfiguration) -> dict[str, float | str]:
    """Return milliseconds per batch or an error text by artefact; empty if the trial fails, which is logged."""
    spec = bundle.manifest.input
    kind = sample_type(bundle.manifest.modality)
    sample = kind.engine_shape(spec)  # empty for vectors: the graph knows their width
    # A single large image gives the same comparison as a batch, in less time.
    shape = [max(1, min(batch_size, MAX_VALUES // math.prod(sample))) if sample else batch_size, *sample]
    with tempfile.TemporaryDirectory() as folder:
        graphs = []
        for number, artefact in enumerate(bundle.manifest.artefacts):
            paths = []
            for path in filter(None, (artefact.graph, weights_path(artefact.graph))):
                paths.append(Path(folder) / f"{number}{Path(path).suffix}")
                paths[-1].write_bytes(bundle.read(path))
            graphs.append({"name": artefact.name, "engine": artefact.engine, "paths": [str(path) for path in paths]})
        asked = {
            "graphs": graphs,
            "configuration": configuration.to_json(),
            "shape": shape,
            "dtype": np.dtype(kind.engine_dtype).name,
        }
        with tempfile.TemporaryFile() as errors:
            try:
                with JsonLinesProcess([sys.executable, "-m", "shared.engines.trial"], stderr=errors) as child:
                    return child.ask(asked, TIMEOUT_S)
            except (OSError, NoAnswerError) as error:
                errors.seek(0)
                text = errors.read().decode("utf-8", "replace")[-300:]
                log.warning("trial_failed", error=error, output=text)
                return {}


def _milliseconds(graph: dict[str, Any], configuration: EngineConfiguration, shape: list[int], dtype: str) -> float:
    contents = [Path(path).read_bytes() for path in graph["paths"]]
    weights = contents[1] if len(contents) > 1 else None
    engine = open_graph(graph["engine"], contents[0], weights, configuration)
    shape = shape if len(shape) > 1 else [*shape, *(abs(size) for size in engine.input_shape[1:])]
    generator = np.random.default_rng(0)
    if dtype == "uint8":
        inputs: Any = generator.integers(0, 256, shape, dtype=np.uint8)
    else:
        inputs = generator.standard_normal(shape, dtype=np.float32)
    engine.start(inputs).result()
    times: list[float] = []
    end_s = time.perf_counter() + MIN_SECONDS
    while len(times) < MIN_RUNS or time.perf_counter() < end_s:
        started_s = time.perf_counter()
        engine.start(inputs).result()
        times.append(time.perf_counter() - started_s)
    return float(np.median(times)) * 1000


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    configuration = EngineConfiguration.from_json(asked["configuration"])
    found: dict[str, Any] = {}
    for graph in asked["graphs"]:
        try:
            found[graph["name"]] = _milliseconds(graph, configuration, asked["shape"], asked["dtype"])
        except Exception as error:  # a graph that fails must not stop the others
            found[graph["name"]] = str(error) or type(error).__name__
    return found


if __name__ == "__main__":
    serve_json_lines(_answer)

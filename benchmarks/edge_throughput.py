"""The agent's screening throughput, from its source to its durable spool, against the bare engine's.

Peer and limit: the engine's own Python interface on the same graph with the same batch size, its requests kept full and
nothing else done. The agent reads and decodes its samples, prepares them, scores them, turns scores into p-values,
routes them, and commits what travels (5 % forwarded, 1 % audited) to its spool on disk. Both use all cores, in turns,
in one process; the ratio is the median over the rounds. Rows of a table at batch 256 show what the agent itself costs a
sample, since their graph takes well under a microsecond each; images at batch 8 are the load a camera brings.
"""

import contextlib
import io
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from edge.alarms import AlarmDelivery
from edge.budget import UploadBudget
from edge.counters import Counters
from edge.latency import LatencyHistogram
from edge.pipeline import Pipeline, Surroundings
from edge.settings import AgentSettings
from edge.spool import Spool
from shared.bundle import Bundle
from shared.images import encode_png
from shared.preprocessing import load_preprocessor
from shared.samples import Modality

ROUNDS, SECONDS = 5, 2.0
FEATURES, ROWS, IMAGES, SIDE_PIXELS = 9, 20_000, 64, 256
KEY = Ed25519PrivateKey.generate()


def run() -> dict[str, Any]:
    """Samples a second of both, and their ratio, for each modality and engine."""
    figures: dict[str, Any] = {}
    for modality, batch_size in ((Modality.TABULAR, 256), (Modality.IMAGE, 8)):
        bundle = small_bundle(modality)
        with tempfile.TemporaryDirectory() as folder:
            source = write_samples(modality, Path(folder))
            for artefact in ("int8_openvino", "int8_onnxruntime"):
                name = f"{modality}_batch_{batch_size}_{artefact}"
                figures[name] = _compare(bundle, artefact, modality, source, batch_size, Path(folder))
                print(name, figures[name], flush=True)
    return figures


def _compare(
    bundle: Bundle, artefact: str, modality: Modality, source: Path, batch_size: int, folder: Path
) -> dict[str, float]:
    inputs = load_preprocessor(bundle).prepare(read_samples(modality, source, batch_size)).inputs
    bare, agent = [], []
    with bare_engine(bundle, artefact, inputs) as run_for:
        for _ in range(ROUNDS):
            bare.append(run_for(SECONDS))
            agent.append(agent_rate(bundle, artefact, modality, source, batch_size, folder))
    return {
        "engine_samples_per_s": round(statistics.median(bare)),
        "agent_samples_per_s": round(statistics.median(agent)),
        "ratio": round(statistics.median(mine / limit for mine, limit in zip(agent, bare, strict=True)), 3),
    }


@contextlib.contextmanager
def bare_engine(bundle: Bundle, artefact: str, inputs: NDArray[Any]) -> Iterator[Callable[[float], float]]:
    """A function that runs the engine alone for some seconds and returns samples a second."""
    entry = bundle.manifest.artefact(artefact)
    once = (_bare_openvino if entry.engine == "openvino" else _bare_onnxruntime)(bundle, entry.graph, inputs)
    for _ in range(10):
        once()

    def run_for(seconds: float) -> float:
        count, started_s = 0, time.perf_counter()
        while time.perf_counter() - started_s < seconds:
            once()
            count += len(inputs)
        return count / (time.perf_counter() - started_s)

    yield run_for


def _bare_openvino(bundle: Bundle, graph: str, inputs: NDArray[Any]) -> Callable[[], None]:
    import openvino

    core = openvino.Core()
    model = core.read_model(bundle.read(graph), bundle.read(graph.removesuffix(".xml") + ".bin"))
    options = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", options)
    count = max(2, compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    requests = [compiled.create_infer_request() for _ in range(count)]

    def once() -> None:
        request = requests.pop(0)
        request.wait()
        request.start_async({0: inputs}, share_inputs=True)
        requests.append(request)

    return once


def _bare_onnxruntime(bundle: Bundle, graph: str, inputs: NDArray[Any]) -> Callable[[], None]:
    import onnxruntime

    session = onnxruntime.InferenceSession(bundle.read(graph), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: inputs}) and None


def agent_rate(bundle: Bundle, artefact: str, modality: Modality, source: Path, batch_size: int, folder: Path) -> float:
    """Samples a second of the agent's own pipeline, with its spool on disk."""
    with tempfile.TemporaryDirectory(dir=folder) as state:
        settings = agent_settings(modality, source, Path(state), artefact, batch_size)
        counters = Counters()
        spool = Spool(Path(state) / "spool.db", settings.spool, counters)
        around = Surroundings(
            settings=settings,
            counters=counters,
            spool=spool,
            budget=UploadBudget(settings.router),
            screen_latency=LatencyHistogram(),
            screening_log=None,
            alarms=AlarmDelivery([], Path(state) / "alarms.db", counters, str),
            buffer_seal=None,
            stop=threading.Event(),
        )
        pipeline = Pipeline(settings.sources[0], around)
        pipeline.begin(bundle)
        started_s = time.perf_counter()
        while not pipeline.ended:
            pipeline.join(0.02)
        seconds = time.perf_counter() - started_s
        spool.close()
        if pipeline.error is not None:
            raise pipeline.error
        return counters.snapshot()["samples_screened"] / seconds


def agent_settings(modality: Modality, source: Path, state: Path, artefact: str, batch_size: int) -> AgentSettings:
    """An agent that replays `source` as fast as it can for some seconds."""
    replay = {
        "id": "bench",
        "kind": "images" if modality is Modality.IMAGE else "replay",
        "path": source,
        "loop": True,
        "stop_after_s": SECONDS,
        "batch_size": batch_size,
        "bundle": state / "none",
        "artefact": artefact,
    }
    return AgentSettings.model_validate({"state_dir": state, "sources": [replay]})


@cache
def small_bundle(modality: Modality) -> Bundle:
    """A bundle with the graph that `vedette train` makes, hardly trained: speed does not depend on the weights."""
    from cloud.training import TrainingSettings, load_training_data, train_bundle
    from shared.diffusion import DistillationSettings

    settings = TrainingSettings.model_validate(
        {
            "name": "bench",
            "head": DistillationSettings(steps=200, perturbed=5000, max_reference=2000),
            "analyzers": ("knn",),
            "quantisation": {"samples": 100, "images": 10},
            "tolerances": {"rank_correlation": 0.0, "label_agreement": 0.0},
        }
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = write_samples(modality, Path(folder))
        return train_bundle(load_training_data(path, modality), settings, KEY)


def write_samples(modality: Modality, folder: Path) -> Path:
    """Correlated rows in an NPZ file, or crops of a photograph of bricks in a folder."""
    random = np.random.default_rng(0)
    if modality is not Modality.IMAGE:
        rows = random.normal(size=(ROWS, FEATURES)) @ random.normal(size=(FEATURES, FEATURES))
        np.savez(folder / "rows.npz", X=rows)
        return folder / "rows.npz"
    from skimage import data

    bricks, target = data.brick(), folder / "bricks"
    target.mkdir(exist_ok=True)
    for number in range(IMAGES):
        top, left = random.integers(0, 512 - SIDE_PIXELS, 2)
        crop = bricks[top : top + SIDE_PIXELS, left : left + SIDE_PIXELS, np.newaxis]
        (target / f"{number:03}.png").write_bytes(encode_png(np.ascontiguousarray(crop)))
    return target


def read_samples(modality: Modality, source: Path, count: int) -> Any:
    """The first samples of what `write_samples` wrote, as a source gives them."""
    if modality is not Modality.IMAGE:
        return np.load(source)["X"][:count].astype(np.float32)
    from shared.images import decode_image

    return [decode_image(path.read_bytes()) for path in sorted(source.iterdir())[:count]]


if __name__ == "__main__":
    run()

"""A plant with four channels and a bank of biopsies: real bundles, judged by their own analyses, in a store.

To look at the pages: python -m tests.cloud.evidence.plant FOLDER [--port 7481]
"""

import argparse
import asyncio
import functools
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud.store import Store
from cloud.store.ingest import Received, store_samples
from cloud.store.judging import store_verdicts, waiting_samples
from cloud.store.registry import Registry
from shared.bundle import REFERENCE_FILE, Artefact, Bundle, InputSpec, Manifest, npz_bytes, sign
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from shared.samples import Decision, Route, Sample, Screening, new_sample_id
from shared.wire import sample_to_message
from tests.cloud.console.filled_store import KEY

LENGTH, STRIDE, INTERVAL_S = 32, 16, 2.0
CHANNELS = ("temperature_c", "pressure_bar", "flow_l_min", "valve_percent")
PLANT, BANK = "boiler-4", "biopsy-bank"


def readings(rows: int, seed: int = 0) -> NDArray[np.float32]:
    """Normal readings of the plant: a slow load moves all channels, the temperature around 89.5."""
    random = np.random.default_rng(seed)
    load = np.sin(np.arange(rows) / 40.0) + 0.3 * np.sin(np.arange(rows) / 9.0)
    noise = random.normal(0, 1, (rows, 4))
    columns = [
        89.5 + 0.5 * load + 0.15 * noise[:, 0],
        4.2 + 0.3 * load + 0.05 * noise[:, 1],
        120.0 + 14.0 * load + 2.0 * noise[:, 2],
        50.0 + 9.0 * load + 1.0 * noise[:, 3],
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def windows_of(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Overlapping windows (n, LENGTH, channels) of readings."""
    views = np.lib.stride_tricks.sliding_window_view(rows, LENGTH, axis=0)[::STRIDE]
    return np.ascontiguousarray(views.transpose(0, 2, 1))


@dataclass(frozen=True)
class Judged:
    """A bundle with its analysis."""

    bundle: Bundle
    analysis: Any


@functools.cache
def plant_bundle() -> Judged:
    """The bundle of the plant's windows."""
    spec = InputSpec(channels=CHANNELS, window_length=LENGTH, window_stride=STRIDE)
    normal = windows_of(readings(6000))
    return _fit("plant", Modality.SERIES, spec, normal[:280], normal[280:])


@functools.cache
def bank_bundle() -> Judged:
    """The bundle of the Wisconsin breast cancer set, benign as normal, with its held-out rows."""
    benign, _ = biopsies()
    spec = InputSpec(channels=biopsy_names())
    fitted = _fit("bank", Modality.TABULAR, spec, benign[:200], benign[200:300])
    inputs = fitted.analysis.preprocessor.prepare(benign[200:300]).inputs
    files = {**fitted.bundle.files, REFERENCE_FILE: npz_bytes({"held_out": inputs})}
    return Judged(sign(fitted.bundle.manifest, files, KEY), fitted.analysis)


@functools.cache
def biopsies() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Benign and malignant rows."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    values = data.data.astype(np.float32)
    return values[data.target == 1], values[data.target == 0]


def biopsy_names() -> tuple[str, ...]:
    """Names of the features."""
    from sklearn.datasets import load_breast_cancer

    return tuple(name.replace(" ", "_") for name in load_breast_cancer().feature_names)


def _fit(
    name: str, modality: Modality, spec: InputSpec, train: NDArray[np.float32], held_out: NDArray[np.float32]
) -> Judged:
    import torch

    from cloud.training.analysis import AnalysisOptions, fit_analysis

    torch.set_num_threads(1)
    preprocessor = fit_preprocessor(modality, train, spec)
    options = AnalysisOptions(methods=("time_estimation", "knn"), fused=("time_estimation",), device="cpu", effort=0.2)
    analysis = fit_analysis(preprocessor, None, train, held_out, options).analysis
    manifest = Manifest(
        name=name,
        version=1,
        created_at=datetime.now(UTC).isoformat(),
        modality=modality,
        input=spec,
        artefacts=(
            Artefact(
                name="int8_openvino",
                engine="openvino",
                precision="int8",
                graph="edge/graph.npz",
                calibration="edge/graph.npz",
                calibration_id="none",
            ),
        ),
        preferred_artefact="int8_openvino",
        parity={},
        tolerances={},
        training={},
        files={},
    )
    files = {**preprocessor.files(), **analysis.files(), "edge/graph.npz": npz_bytes({"a": np.zeros(1)})}
    return Judged(sign(manifest, files, KEY), analysis)


async def publish(registry: Registry, *judged: Judged) -> None:
    """Add the bundles to the registry."""
    for each in judged:
        await registry.publish(each.bundle)


async def send(
    store: Store,
    judged: Judged,
    device_id: str,
    source_id: str,
    values: Sequence[NDArray[np.float32]],
    times_s: Sequence[float],
    origins: Sequence[str],
    route: Route = Route.FORWARD,
) -> list[uuid.UUID]:
    """Store samples of a device and the verdicts of the bundle's own analysis on them; return their ids."""
    manifest = judged.bundle.manifest
    received, verdicts = [], judged.analysis.judge(list(values))
    for value, at_s, origin in zip(values, times_s, origins, strict=True):
        sample = Sample(new_sample_id(), source_id, manifest.modality, at_s, origin, value)
        screening = Screening(3.1, 0.004, False, route, manifest.bundle_id, "none", "int8_openvino")
        received.append((sample, Received(sample, screening, sample_to_message(sample, screening).payload)))
    await store_samples(store, device_id, [item for _, item in received], max(times_s) + 0.3)
    waiting = {item.sample_id: item for item in await waiting_samples(store, 1000)}
    rows = []
    for place, ((sample, _), verdict) in enumerate(zip(received, verdicts, strict=True)):
        decision = Decision.ANOMALOUS if verdict.p_value <= 0.01 else Decision.NORMAL
        changed = {
            "sample_id": sample.sample_id,
            "decision": decision,
            "bundle_id": manifest.bundle_id,
            "judged_at_s": times_s[place] + 0.9,
        }
        rows.append((waiting[sample.sample_id], _replace(verdict, changed)))
    await store_verdicts(store, rows)
    return [sample.sample_id for sample, _ in received]


def _replace(verdict: Any, changes: dict[str, Any]) -> Any:
    from dataclasses import replace

    return replace(verdict, **changes)


def falling(rows: int = 400, at: int = 240) -> NDArray[np.float32]:
    """Readings in which the temperature falls to about 79.65 while nothing else changes."""
    values = readings(rows, seed=3)
    values[at : at + 60, 0] = 79.65 + 0.1 * np.random.default_rng(1).normal(0, 1, 60)
    return values


async def send_plant(store: Store, now_s: float) -> list[uuid.UUID]:
    """All windows of a plant whose temperature falls; return their ids."""
    windows = windows_of(falling())
    last = [LENGTH - 1 + STRIDE * place for place in range(len(windows))]
    times = [now_s - (400 - row) * INTERVAL_S for row in last]
    origins = [f"boiler@{place}" for place in range(len(windows))]
    return await send(store, plant_bundle(), PLANT, "boiler", list(windows), times, origins)


async def send_bank(store: Store, now_s: float) -> list[uuid.UUID]:
    """Benign and malignant rows; return the ids of the malignant ones."""
    benign, malignant = biopsies()
    rows = [*benign[300:320], *malignant[:6]]
    times = [now_s - 60.0 + place for place in range(len(rows))]
    origins = [f"biopsies.csv:{place + 1}" for place in range(len(rows))]
    return (await send(store, bank_bundle(), BANK, "lab", rows, times, origins))[20:]


async def _serve(folder: Path, port: int) -> None:
    import uvicorn

    from cloud.console import create_app
    from tests.cloud.console.filled_store import CAMERA, DOOR, Fleet, add_devices, open_store

    store, registry = open_store(folder)
    fleet = Fleet(store, registry)
    await fleet.enrol()
    await fleet.send_many(60)
    await add_devices(store, PLANT, BANK)
    await publish(registry, plant_bundle(), bank_bundle())
    plant = await send_plant(store, time.time() - 5)
    bank = await send_bank(store, time.time() - 5)
    camera, door = await fleet.send(CAMERA, odd=True), await fleet.send(DOOR, odd=True)
    print(
        "plant",
        plant[15],
        "quiet",
        plant[3],
        "bank",
        bank[0],
        "camera",
        camera.sample_id,
        "door",
        door.sample_id,
        flush=True,
    )
    await uvicorn.Server(uvicorn.Config(create_app(store, registry), port=port, log_level="warning")).serve()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=7481)
    options = parser.parse_args()
    asyncio.run(_serve(options.folder, options.port))

"""References for the devices' screening: the service's store and a pass of the analyzers over all samples."""

import platform
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from cloud.modalities import cloud_modality
from shared.bundle import Bundle
from shared.samples import Decision, Values

VERSIONED = ("vedette", "numpy", "torch", "onnx", "onnxruntime", "openvino", "nncf", "grpcio", "protobuf", "flwr")


def read_decisions(data_dir: Path, device_id: str) -> dict[UUID, Decision | None]:
    """Return the decision on every stored sample of a device; None while it has no verdict."""
    query = """
        SELECT samples.sample_id, verdicts.decision FROM samples LEFT JOIN verdicts USING (number)
        WHERE samples.device_id = ?
    """
    with closing(sqlite3.connect(f"file:{data_dir / 'vedette.sqlite'}?mode=ro", uri=True)) as store:
        return {
            UUID(bytes=sample_id): Decision(decision) if decision else None
            for sample_id, decision in store.execute(query, (device_id,))
        }


def fused_scores(bundle: Bundle, samples: Iterable[Values]) -> NDArray[np.float64]:
    """Return fused scores (samples,) from one pass of the bundle's analyzers; higher is more anomalous.

    A sample that cannot be analysed scores infinity, so it never counts as normal.
    """
    from cloud.serving.analysis import FUSED, Analysis

    analysis = Analysis.load(bundle)
    scores: list[NDArray[np.float64]] = [np.empty(0)]
    for values in batched(samples, cloud_modality(bundle.manifest.modality).chunk_samples):
        kept = analysis.preprocessor.prepare(values).kept
        chunk = np.full(len(values), np.inf)
        chunk[kept] = analysis.score(values)[FUSED]
        scores.append(np.nan_to_num(chunk, nan=np.inf))
    return np.concatenate(scores)


def batched(items: Iterable[Values], size: int) -> Iterator[list[Values]]:
    """Yield lists of up to `size` items, in order."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

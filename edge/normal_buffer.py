"""Bounded random sample of the accepted samples of a source, for federated rounds. It never leaves the device.

Source: reservoir sampling, algorithm R: Vitter, "Random sampling with a reservoir" (1985).
"""

import io
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edge.sealing import Seal, is_sealed, read_sealed
from shared.bundle import npz_bytes
from shared.errors import DataError
from shared.files import write_durably
from shared.logs import EventLog

FOLDER = PURPOSE = "normal_buffer"

log = EventLog("normal_buffer")


@dataclass(frozen=True, slots=True)
class NormalSnapshot:
    """Content of a normal buffer.

    `inputs`: (n, dim) float32 graph inputs of accepted samples. `seen`: number of samples that they were drawn from.
    """

    inputs: NDArray[np.float32]
    seen: int
    preprocessing_id: str
    bundle_name: str

    def to_bytes(self) -> bytes:
        """Return the snapshot as an NPZ file."""
        return npz_bytes(
            {
                "inputs": self.inputs,
                "seen": np.array(self.seen, dtype=np.int64),
                "preprocessing_id": np.array(self.preprocessing_id),
                "bundle_name": np.array(self.bundle_name),
            }
        )


def load_snapshot(path: Path, seal: Seal | None = None) -> NormalSnapshot:
    """Return the snapshot in an NPZ file, which may be sealed; raises DataError if it cannot be read."""
    try:
        with np.load(io.BytesIO(read_sealed(path, seal)), allow_pickle=False) as archive:
            inputs = np.asarray(archive["inputs"], dtype=np.float32)
            seen = int(archive["seen"])
            texts = str(archive["preprocessing_id"]), str(archive["bundle_name"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, DataError) as error:
        raise DataError(
            f"{path}: no normal buffer could be read ({error}). Let the agent screen for a while."
        ) from None
    if inputs.ndim != 2 or not np.isfinite(inputs).all() or seen < len(inputs):
        raise DataError(f"{path}: not a normal buffer. Remove it; the agent creates a new one.")
    return NormalSnapshot(inputs, seen, *texts)


class NormalBuffer:
    """Normal buffer of one source: filled by its pipeline, saved from any thread."""

    def __init__(
        self,
        path: Path,
        capacity: int,
        preprocessing_id: str,
        bundle_name: str,
        seed: int = 0,
        seal: Seal | None = None,
    ) -> None:
        """Start empty. `seal`: key to encrypt snapshots with; None for no encryption."""
        self.path, self._capacity, self._seal = path, capacity, seal
        self.preprocessing_id, self._bundle_name = preprocessing_id, bundle_name
        self._random = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._inputs: NDArray[np.float32] | None = None
        self._filled = self._seen = self._saved_seen = 0

    @classmethod
    def open(cls, path: Path, capacity: int, preprocessing_id: str, bundle_name: str, seal: Seal | None = None) -> Self:
        """Continue from the snapshot at `path` if its preprocessing is the same; otherwise start empty.

        With a `seal`, the next snapshot is encrypted even if this one is not.
        """
        buffer = cls(path, capacity, preprocessing_id, bundle_name, seed=time.time_ns(), seal=seal)
        if not path.exists():
            return buffer
        try:
            snapshot = load_snapshot(path, seal)
        except DataError as error:
            log.warning("snapshot_unreadable", path=path, error=error, advice="the buffer starts empty")
            return buffer
        if snapshot.preprocessing_id == preprocessing_id:
            buffer._restore(snapshot)
            if seal is not None and not is_sealed(path.read_bytes()):
                buffer._saved_seen = 0
        else:
            log.info("snapshot_outdated", path=path, reason="the bundle has another preprocessing")
        return buffer

    def offer(
        self,
        inputs: NDArray[Any],
        accepted: NDArray[np.bool_],
        graph_inputs: Callable[[NDArray[Any]], NDArray[Any]],
    ) -> None:
        """Keep each accepted sample with probability capacity / seen.

        `inputs`: engine inputs (n, ...). `accepted`: (n,). `graph_inputs`: function from engine inputs to graph inputs,
        which runs on the kept samples only.
        """
        positions = np.flatnonzero(accepted)
        if not len(positions) or not self._capacity:
            return
        with self._lock:
            room = min(self._capacity - self._filled, len(positions))
            counts = self._seen + 1 + np.arange(len(positions))
            places = (self._random.random(len(positions)) * counts).astype(np.int64)
            places[:room] = self._filled + np.arange(room)
            chosen = places < self._capacity
            if chosen.any():
                kept = graph_inputs(inputs[positions[chosen]])
                if self._inputs is None:
                    self._inputs = np.empty((self._capacity, kept.shape[1]), dtype=np.float32)
                self._inputs[places[chosen]] = kept  # of two samples for one place the later one stays
            self._filled += room
            self._seen += len(positions)

    def save(self) -> None:
        """Write a snapshot if samples were added; raises OSError on disk errors."""
        with self._lock:
            if self._inputs is None or self._seen == self._saved_seen:
                return
            inputs, seen = self._inputs[: self._filled].copy(), self._seen
        snapshot = NormalSnapshot(inputs, seen, self.preprocessing_id, self._bundle_name)
        data = snapshot.to_bytes()
        write_durably(self.path, data if self._seal is None else self._seal.seal(data), mode=0o600)
        self._saved_seen = seen

    def __len__(self) -> int:
        return self._filled

    def _restore(self, snapshot: NormalSnapshot) -> None:
        count = min(len(snapshot.inputs), self._capacity)
        self._inputs = np.empty((self._capacity, snapshot.inputs.shape[1]), dtype=np.float32)
        picked = self._random.permutation(len(snapshot.inputs))[:count]
        self._inputs[:count] = snapshot.inputs[picked]
        self._filled, self._seen, self._saved_seen = count, snapshot.seen, snapshot.seen

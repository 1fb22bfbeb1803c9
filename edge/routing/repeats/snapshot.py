"""Snapshot of the prototypes, pending samples, normal samples and counts of one source, in one file."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edge.routing.repeats.counts import CopyCounts
from edge.routing.repeats.memory import Prototype, PrototypeKind, PrototypeMemory, SentSample
from edge.routing.repeats.normals import NormalSample
from edge.sealing import Seal, read_sealed
from shared.bundle import npz_bytes
from shared.errors import DataError
from shared.files import write_durably
from shared.logs import EventLog
from shared.samples import new_sample_id
from shared.status import NearCopies

FOLDER = "repeats"
NO_ID = bytes(16)

log = EventLog("repeats")


@dataclass(frozen=True, slots=True)
class RepeatSnapshot:
    """Content of a snapshot: `normals` (n, dim), of `seen` accepted samples, and the prototypes of a bundle.

    `sent`: samples without a verdict. `newest_id`: largest id of a sent sample so far.
    """

    bundle_id: str
    blocks: tuple[int, ...]
    normals: NDArray[np.float32]
    seen: int
    prototypes: tuple[Prototype, ...]
    sent: tuple[SentSample, ...]
    newest_id: bytes
    counts: tuple[NearCopies, ...]

    @classmethod
    def of(cls, bundle_id: str, memory: PrototypeMemory, counts: CopyCounts) -> Self:
        """Return the snapshot of a memory."""
        return cls(
            bundle_id,
            memory.normals.blocks,
            memory.normals.values.copy(),
            memory.normals.seen,
            tuple(memory),
            tuple(memory.pending()),
            memory.newest_id,
            tuple(counts.totals()),
        )

    def memory(self, expires_s: float, *, keeps_cleared: bool) -> PrototypeMemory:
        """Return the memory as it was; see `PrototypeMemory`."""
        normals = NormalSample(self.blocks)
        normals.restore(self.normals, self.seen)
        memory = PrototypeMemory(normals, expires_s, keeps_cleared=keeps_cleared)
        memory.restore(self.prototypes, self.sent, (self.newest_id, new_sample_id().bytes))
        return memory

    def to_bytes(self) -> bytes:
        """Return the snapshot as an NPZ file."""
        numbers = [(item.p_value, item.since_s, item.kind, item.used_at_s, item.in_turn) for item in self.prototypes]
        return npz_bytes(
            {
                "bundle_id": np.array(self.bundle_id),
                "blocks": np.array(self.blocks, dtype=np.int64),
                "normals": self.normals,
                "seen": np.array(self.seen, dtype=np.int64),
                "values": self._stacked(self.prototypes),
                "numbers": np.array(numbers, dtype=np.float64).reshape(-1, 5),
                "sample_ids": _ids([item.sample_id for item in self.prototypes]),
                "sent": self._stacked(self.sent),
                "sent_numbers": np.array([(item.p_value, item.since_s) for item in self.sent], np.float64).reshape(
                    -1, 2
                ),
                "sent_ids": _ids([item.sample_id for item in self.sent]),
                "copied_ids": _ids([item.copy_of or NO_ID for item in self.sent]),
                "newest_id": _ids([self.newest_id or NO_ID]),
                "counted_ids": _ids([item.sample_id for item in self.counts]),
                "copies": np.array([(item.copies, item.last_at_s) for item in self.counts], np.float64).reshape(-1, 2),
            }
        )

    def _stacked(self, items: Sequence[Prototype | SentSample]) -> NDArray[np.float32]:
        return np.array([item.value for item in items], np.float32).reshape(-1, sum(self.blocks))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the snapshot in an NPZ file; raises DataError, ValueError or KeyError for anything else."""
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays: dict[str, NDArray[Any]] = {name: archive[name] for name in archive.files}
        blocks = tuple(int(length) for length in arrays["blocks"])
        embeddings = normals, values, waiting = [
            np.asarray(arrays[name], dtype=np.float32) for name in ("normals", "values", "sent")
        ]
        if min(blocks, default=0) <= 0 or any(item.shape[1:] != (sum(blocks),) for item in embeddings):
            raise DataError("its embeddings have another length")
        if not all(np.isfinite(item).all() for item in (*embeddings, arrays["numbers"], arrays["sent_numbers"])):
            raise DataError("it holds numbers that are not finite")
        prototypes = tuple(
            Prototype(value, p, since_s, bytes(key), PrototypeKind(int(kind)), used_at_s, int(in_turn))
            for value, key, (p, since_s, kind, used_at_s, in_turn) in zip(
                values, arrays["sample_ids"], arrays["numbers"].tolist(), strict=True
            )
        )
        sent = tuple(
            SentSample(value, p, since_s, bytes(key), bytes(copied).removeprefix(NO_ID))
            for value, key, copied, (p, since_s) in zip(
                waiting, arrays["sent_ids"], arrays["copied_ids"], arrays["sent_numbers"].tolist(), strict=True
            )
        )
        counts = tuple(
            NearCopies(sample_id=bytes(key), copies=int(copies), last_at_s=last_at_s)
            for key, (copies, last_at_s) in zip(arrays["counted_ids"], arrays["copies"].tolist(), strict=True)
        )
        newest_id = bytes(arrays["newest_id"][0]).removeprefix(NO_ID)
        return cls(str(arrays["bundle_id"]), blocks, normals, int(arrays["seen"]), prototypes, sent, newest_id, counts)


def load_snapshot(path: Path, seal: Seal | None = None) -> RepeatSnapshot | None:
    """Return the snapshot at `path`; None if there is none, or if it cannot be read, which is logged."""
    try:
        return RepeatSnapshot.from_bytes(read_sealed(path, seal))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, DataError) as error:
        log.warning("repeats_unreadable", path=path, error=error, advice="the memory starts empty: copies are sent")
        return None


def save_snapshot(path: Path, snapshot: RepeatSnapshot, seal: Seal | None = None) -> None:
    """Write a snapshot, encrypted if there is a `seal`; raises OSError."""
    data = snapshot.to_bytes()
    write_durably(path, data if seal is None else seal.seal(data), mode=0o600)


def _ids(sample_ids: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(sample_ids), dtype=np.uint8).reshape(-1, 16)

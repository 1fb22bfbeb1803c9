"""Batches of waiting samples: one bundle each, bounded in samples, bytes and decoded values."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cloud.store.judging import WaitingSample
from cloud.store.segments import LostValue
from vedette.v1 import sample_pb2

MAX_BATCH_PAYLOAD_BYTES = 64 * 2**20
MAX_BATCH_VALUES = 2**26

Stored: TypeAlias = sample_pb2.Payload | LostValue
Pair: TypeAlias = tuple[WaitingSample, Stored | None]
"""Waiting sample and its payload; None: the store has none."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of one bundle; `is_full`: another sample of the bundle would not fit in."""

    samples: Sequence[WaitingSample]
    is_full: bool

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def edge_bundle_id(self) -> str:
        """Bundle that screened the samples on their devices."""
        return self.samples[0].edge_bundle_id


def batches_of(window: Sequence[WaitingSample], batch_size: int, sizes: Mapping[str, int]) -> list[Batch]:
    """Return batches of one bundle each, bounded in samples and bytes, in the order of their first samples.

    `sizes`: batch sizes of the bundles with another than `batch_size`.
    """
    by_bundle: dict[str, list[WaitingSample]] = {}
    for waiting in window:
        by_bundle.setdefault(waiting.edge_bundle_id, []).append(waiting)
    batches: list[Batch] = []
    for edge_bundle_id, group in by_bundle.items():
        most = sizes.get(edge_bundle_id, batch_size)
        batch: list[WaitingSample] = []
        payload_bytes = 0
        for waiting in group:
            if batch and (len(batch) >= most or payload_bytes + waiting.payload_bytes > MAX_BATCH_PAYLOAD_BYTES):
                batches.append(Batch(batch, is_full=True))
                batch, payload_bytes = [], 0
            batch.append(waiting)
            payload_bytes += waiting.payload_bytes
        batches.append(Batch(batch, len(batch) >= most))
    place = {waiting.number: position for position, waiting in enumerate(window)}
    return sorted(batches, key=lambda batch: place[batch.samples[0].number])


def chunks_of(batch: Sequence[WaitingSample], payloads: Mapping[int, Stored]) -> Iterator[list[Pair]]:
    """Yield chunks of the batch whose decoded values fit into memory: a small file can decode to a large image."""
    chunk: list[Pair] = []
    values = 0
    for waiting in batch:
        payload = payloads.get(waiting.number)
        size = math.prod(payload.shape) if isinstance(payload, sample_pb2.Payload) else 0
        if chunk and values + size > MAX_BATCH_VALUES:
            yield chunk
            chunk, values = [], 0
        chunk.append((waiting, payload))
        values += size
    if chunk:
        yield chunk

"""Ingest of samples: many requests in one transaction; a sample that is sent again changes nothing."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from cloud.store.engine import Store
from cloud.store.payload_rows import payload_values
from cloud.store.sample_rows import Row
from shared.samples import Sample, Screening
from shared.wire import decoded_bytes
from vedette.v1 import sample_pb2

T = TypeVar("T")
MAX_PARAMETERS = 500  # of one IN (...)


class IngestStatus(StrEnum):
    """Result of ingesting one sample; FOREIGN: another device has sent its id."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Received:
    """Checked sample without its values; the payload is stored as received."""

    sample: Sample
    screening: Screening
    payload: sample_pb2.Payload
    traced: bool = False

    def row(self, device_id: str, received_at_s: float) -> Row:
        """Return the sample as the store writes it."""
        sample, screening, edge_map = self.sample, self.screening, self.screening.anomaly_map
        stored = payload_values(self.payload)
        return (
            (
                sample.sample_id.bytes,
                device_id,
                received_at_s,
                sample.source_id,
                sample.modality.value,
                sample.origin,
                sample.captured_at_s,
                screening.route.value,
                screening.score if math.isfinite(screening.score) else None,
                screening.p_value,
                screening.extrapolated,
                screening.bundle_id,
                screening.calibration_id,
                screening.artefact,
                self.traced,
                len(self.payload.data),
            ),
            (
                stored["encoding"],
                json.dumps(stored["shape"]),
                stored["data"],
                stored["part"],
                *((None, None, None) if edge_map is None else (*edge_map.shape, edge_map.tobytes())),
            ),
            decoded_bytes(self.payload.encoding, self.payload.shape),
        )


async def store_samples(
    store: Store, device_id: str, received: Sequence[Received], received_at_s: float
) -> list[IngestStatus]:
    """Store new samples durably and return the status of each.

    Raises StorageError; nothing of the request is stored then.
    """
    rows = [item.row(device_id, received_at_s) for item in received]
    return (await store_requests(store, [rows]))[0]


async def store_requests(store: Store, requests: Sequence[Sequence[Row]]) -> list[list[IngestStatus]]:
    """Store the new samples of several requests in one durable transaction; return the status of each sample.

    Of two samples with the same id the first is stored. Raises StorageError; nothing is stored then.
    """
    rows = [row for request in requests for row in request]
    old = await store.append_samples(rows)
    if not old:
        return [[IngestStatus.STORED] * len(request) for request in requests]
    outcomes = iter([_status(row, old.get(place)) for place, row in enumerate(rows)])
    return [[next(outcomes) for _ in request] for request in requests]


def _status(row: Row, owner: str | None) -> IngestStatus:
    """Return the status of a sample whose id `owner` had sent before, None: no one."""
    if owner is None:
        return IngestStatus.STORED
    return IngestStatus.DUPLICATE if owner == row[0][1] else IngestStatus.FOREIGN


def slices(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the values in slices that fit into one IN (...)."""
    for start in range(0, len(values), MAX_PARAMETERS):
        yield values[start : start + MAX_PARAMETERS]

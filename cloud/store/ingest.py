"""Ingest of samples: one transaction per request; a sample that is sent again changes nothing."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.engine import Store
from cloud.store.payload_rows import payload_values
from cloud.store.schema import payloads, samples
from shared.samples import Sample, Screening
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


async def store_samples(
    store: Store, device_id: str, received: Sequence[Received], received_at_s: float
) -> list[IngestStatus]:
    """Store new samples durably and return the status of each.

    Raises StorageError; nothing of the request is stored then.
    """
    ids = [item.sample.sample_id.bytes for item in received]
    async with store.writing() as connection:
        owners = await _owners(connection, ids)
        outcomes, fresh = [], []
        for item, sample_id in zip(received, ids, strict=True):
            owner = owners.get(sample_id)
            if owner is None:
                owners[sample_id] = device_id  # a second one in the same request is also a duplicate
                fresh.append(item)
                outcomes.append(IngestStatus.STORED)
            else:
                outcomes.append(IngestStatus.DUPLICATE if owner == device_id else IngestStatus.FOREIGN)
        if fresh:
            rows = [_sample_row(item, device_id, received_at_s) for item in fresh]
            result = await connection.execute(insert(samples).returning(samples.c.sample_id, samples.c.number), rows)
            numbers: dict[bytes, int] = {row.sample_id: row.number for row in result}
            await connection.execute(
                insert(payloads), [_payload_row(item, numbers[item.sample.sample_id.bytes]) for item in fresh]
            )
    return outcomes


async def _owners(connection: AsyncConnection, sample_ids: Sequence[bytes]) -> dict[bytes, str]:
    """Return the device of each sample that is stored already."""
    owners: dict[bytes, str] = {}
    for part in parts(sample_ids):
        query = select(samples.c.sample_id, samples.c.device_id).where(samples.c.sample_id.in_(part))
        owners.update({row.sample_id: row.device_id for row in await connection.execute(query)})
    return owners


def parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the values in parts that fit into one IN (...)."""
    for start in range(0, len(values), MAX_PARAMETERS):
        yield values[start : start + MAX_PARAMETERS]


def _sample_row(item: Received, device_id: str, received_at_s: float) -> dict[str, object]:
    sample, screening = item.sample, item.screening
    return {
        "sample_id": sample.sample_id.bytes,
        "device_id": device_id,
        "source_id": sample.source_id,
        "modality": sample.modality.value,
        "origin": sample.origin,
        "captured_at_s": sample.captured_at_s,
        "received_at_s": received_at_s,
        "route": screening.route.value,
        "edge_score": screening.score if math.isfinite(screening.score) else None,
        "edge_p_value": screening.p_value,
        "edge_extrapolated": screening.extrapolated,
        "edge_bundle_id": screening.bundle_id,
        "calibration_id": screening.calibration_id,
        "artefact": screening.artefact,
        "payload_bytes": len(item.payload.data),
    }


def _payload_row(item: Received, number: int) -> dict[str, object]:
    edge_map = item.screening.anomaly_map
    return {
        "number": number,
        **payload_values(item.payload),
        "edge_map_height": edge_map.shape[0] if edge_map is not None else None,
        "edge_map_width": edge_map.shape[1] if edge_map is not None else None,
        "edge_map": edge_map.tobytes() if edge_map is not None else None,
    }

"""Queue of samples to judge, and their verdicts.

The store itself is the queue: a sample waits until the transaction that writes its verdict. A process that dies in
between loses nothing; the next one continues.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, false, func, insert, select, true, update

from cloud.store.engine import Store
from cloud.store.payload_rows import COLUMNS, payload_message
from cloud.store.schema import EVENT_VERDICT, anomaly_maps, events, payloads, samples, verdicts
from cloud.store.verdict_columns import COLUMNS as VERDICT_COLUMNS
from cloud.store.verdict_columns import MAX_REASON_CHARACTERS, VERDICTS, contributions_to_json, opinions_to_json
from shared.modality import Modality
from shared.samples import Route, Verdict, p_value_to_column
from vedette.v1 import sample_pb2


@dataclass(frozen=True, slots=True)
class WaitingSample:
    """Sample that waits for its verdict; `edge_bundle_id` is the bundle that screened it on the device."""

    number: int
    sample_id: uuid.UUID
    device_id: str
    source_id: str
    modality: Modality
    edge_bundle_id: str
    received_at_s: float
    payload_bytes: int
    route: Route


@dataclass(frozen=True, slots=True)
class Backlog:
    """Number of samples that wait for a verdict, in total and by device."""

    total: int
    by_device: dict[str, int]


async def waiting_samples(store: Store, limit: int) -> list[WaitingSample]:
    """Return the next samples to judge, oldest first per device, devices in turn: none delays the others."""
    turn = func.row_number().over(partition_by=samples.c.device_id, order_by=samples.c.number).label("turn")
    queue = select(samples.c.number, turn).where(samples.c.judged == false()).subquery()
    query = (
        select(
            samples.c.number,
            samples.c.sample_id,
            samples.c.device_id,
            samples.c.source_id,
            samples.c.modality,
            samples.c.edge_bundle_id,
            samples.c.received_at_s,
            samples.c.payload_bytes,
            samples.c.route,
        )
        .join(queue, queue.c.number == samples.c.number)
        .order_by(queue.c.turn, samples.c.number)
        .limit(limit)
    )
    async with store.reading() as connection:
        return [
            WaitingSample(
                row.number,
                uuid.UUID(bytes=row.sample_id),
                row.device_id,
                row.source_id,
                Modality(row.modality),
                row.edge_bundle_id,
                row.received_at_s,
                row.payload_bytes,
                Route(row.route),
            )
            for row in await connection.execute(query)
        ]


async def backlog(store: Store) -> Backlog:
    """Return the number of samples that wait now."""
    query = select(samples.c.device_id, func.count()).where(samples.c.judged == false()).group_by(samples.c.device_id)
    async with store.reading() as connection:
        counts = {str(device_id): int(count) for device_id, count in await connection.execute(query)}
    return Backlog(sum(counts.values()), counts)


async def load_payloads(store: Store, numbers: Sequence[int]) -> dict[int, sample_pb2.Payload]:
    """Return the payloads of these samples as received, by number."""
    query = select(payloads.c.number, *(payloads.c[name] for name in COLUMNS)).where(payloads.c.number.in_(numbers))
    async with store.reading() as connection:
        rows = (await connection.execute(query)).mappings()
        return {row["number"]: payload_message(row) for row in rows}


async def store_verdicts(store: Store, judged: Sequence[tuple[WaitingSample, Verdict]]) -> None:
    """Store verdicts and their events, and remove the samples from the queue, in one transaction."""
    if not judged:
        return
    maps = [_map_row(waiting.number, verdict) for waiting, verdict in judged if verdict.anomaly_map is not None]
    numbers = [{"judged_number": waiting.number} for waiting, _ in judged]
    async with store.writing() as connection:
        await connection.execute(insert(verdicts), [_verdict_row(waiting, verdict) for waiting, verdict in judged])
        if maps:
            await connection.execute(insert(anomaly_maps), maps)
        await connection.execute(insert(events), [_event_row(waiting, verdict) for waiting, verdict in judged])
        taken_off = update(samples).where(samples.c.number == bindparam("judged_number")).values(judged=true())
        await connection.execute(taken_off, numbers)


def _verdict_row(waiting: WaitingSample, verdict: Verdict) -> dict[str, object]:
    """Return the columns of `verdicts`: from the sample where it declares a field of that name, else the verdict."""
    changed: dict[str, object] = {
        "modality": waiting.modality.value,
        "route": waiting.route.value,
        "decision": verdict.decision.value,
        "p_value": p_value_to_column(verdict.p_value),
        "reason": verdict.reason[:MAX_REASON_CHARACTERS],
        "opinions": opinions_to_json(verdict.opinions),
        "contributions": contributions_to_json(verdict.contributions),
    }
    names = [name for name, stored in VERDICT_COLUMNS.items() if VERDICTS in stored.tables]
    return {
        name: changed[name] if name in changed else getattr(waiting if hasattr(waiting, name) else verdict, name)
        for name in names
    }


def _map_row(number: int, verdict: Verdict) -> dict[str, object]:
    assert verdict.anomaly_map is not None
    height, width = verdict.anomaly_map.shape
    return {"number": number, "height": height, "width": width, "cells": verdict.anomaly_map.tobytes()}


def _event_row(waiting: WaitingSample, verdict: Verdict) -> dict[str, object]:
    return {
        "device_id": waiting.device_id,
        "kind": EVENT_VERDICT,
        "created_at_s": verdict.judged_at_s,
        "number": waiting.number,
    }

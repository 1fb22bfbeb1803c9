"""Events for devices: verdicts and bundle changes, each once, in the order of their cursors."""

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import RowMapping, Select, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.contents import Row, cells_of, rows_with_values
from cloud.store.engine import Store
from cloud.store.schema import ALL_DEVICES, EVENT_BUNDLE_CHANGED, anomaly_maps, events, samples, verdicts
from cloud.store.segments import PLACE_COLUMNS, Values
from cloud.store.verdict_columns import contributions_from_json, opinions_from_json
from shared.samples import Decision, Verdict, p_value_from_column


@dataclass(frozen=True, slots=True)
class BundleChange:
    """Event: the bundle of this name is now another one."""

    bundle_name: str
    bundle_id: str


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """Event as stored; `content` is None if its verdict was removed since."""

    cursor: int
    content: Verdict | BundleChange | None


@dataclass(frozen=True, slots=True)
class WrittenEvent:
    """Event that this process has just written, and its device."""

    device_id: str
    event: StoredEvent


async def newest_cursor(store: Store) -> int:
    """Return the cursor of the newest event, or 0 if there is none."""
    async with store.reading() as connection:
        return int((await connection.execute(select(func.coalesce(func.max(events.c.cursor), 0)))).scalar_one())


async def audiences_between(store: Store, after: int, newest: int) -> set[str]:
    """Return the devices with events beyond the cursor `after` up to `newest`; ALL_DEVICES is one of them."""
    query = select(events.c.device_id).where(events.c.cursor > after, events.c.cursor <= newest).distinct()
    async with store.reading() as connection:
        return set((await connection.execute(query)).scalars())


async def events_after(store: Store, device_id: str, cursor: int, limit: int) -> list[StoredEvent]:
    """Return the next events of one device after the cursor, in order, at most `limit`."""

    async def read(connection: AsyncConnection) -> list[RowMapping]:
        rows: list[RowMapping] = []
        for audience in (device_id, ALL_DEVICES):  # one index scan each: an OR would sort all events
            rows += (await connection.execute(_page(audience, cursor, limit))).mappings().all()
        return sorted(rows, key=lambda row: int(row["cursor"]))[:limit]

    rows, values = await rows_with_values(store, read)
    return [_event(row, values) for row in rows]


async def events_between(store: Store, after: int, newest: int, device_ids: Collection[str]) -> list[WrittenEvent]:
    """Return the events of these devices beyond the cursor `after` up to `newest`, in order; ALL_DEVICES is one."""
    query = _contents().where(events.c.cursor > after, events.c.cursor <= newest, events.c.device_id.in_(device_ids))

    async def read(connection: AsyncConnection) -> Sequence[RowMapping]:
        return list((await connection.execute(query.order_by(events.c.cursor))).mappings())

    rows, values = await rows_with_values(store, read)
    return [WrittenEvent(row["device_id"], _event(row, values)) for row in rows]


async def add_bundle_change(
    connection: AsyncConnection, change: BundleChange, at_s: float, device_ids: Iterable[str] = (ALL_DEVICES,)
) -> None:
    """Add an event for every device, or for some, in the transaction that changes their bundle."""
    values = {
        "kind": EVENT_BUNDLE_CHANGED,
        "created_at_s": at_s,
        "bundle_name": change.bundle_name,
        "bundle_id": change.bundle_id,
    }
    if rows := [{"device_id": device_id, **values} for device_id in device_ids]:
        await connection.execute(insert(events), rows)


def _verdict(row: Row, values: Values) -> Verdict:
    """Return the verdict in a row of `_contents`; without its map if that is lost."""
    cells = cells_of(row, values)
    return Verdict(
        sample_id=uuid.UUID(bytes=row["sample_id"]),
        decision=Decision(row["decision"]),
        p_value=p_value_from_column(row["p_value"]),
        extrapolated=row["extrapolated"],
        opinions=opinions_from_json(row["opinions"]),
        bundle_id=row["verdict_bundle_id"],
        judged_at_s=row["judged_at_s"],
        anomaly_map=None if cells is None else np.frombuffer(cells, np.uint8).reshape(row["height"], row["width"]),
        contributions=contributions_from_json(row["contributions"]),
        reason=row["reason"],
    )


def _page(audience: str, cursor: int, limit: int) -> Select[Any]:
    mine = _contents().where(events.c.device_id == audience, events.c.cursor > cursor)
    return mine.order_by(events.c.cursor).limit(limit)


def _contents() -> Select[Any]:
    """Return the query for events with their verdicts."""
    return (
        select(
            events.c.cursor,
            events.c.device_id,
            events.c.kind,
            events.c.bundle_name,
            events.c.bundle_id,
            samples.c.sample_id,
            verdicts.c.decision,
            verdicts.c.p_value,
            verdicts.c.extrapolated,
            verdicts.c.opinions,
            verdicts.c.contributions,
            verdicts.c.bundle_id.label("verdict_bundle_id"),
            verdicts.c.judged_at_s,
            verdicts.c.reason,
            anomaly_maps.c.height,
            anomaly_maps.c.width,
            anomaly_maps.c.cells,
            *(anomaly_maps.c[name] for name in PLACE_COLUMNS),
        )
        .select_from(events)
        .outerjoin(verdicts, verdicts.c.number == events.c.number)
        .outerjoin(samples, samples.c.number == events.c.number)
        .outerjoin(anomaly_maps, anomaly_maps.c.number == events.c.number)
    )


def _event(row: Row, values: Values) -> StoredEvent:
    content: Verdict | BundleChange | None = None
    if row["kind"] == EVENT_BUNDLE_CHANGED:
        content = BundleChange(row["bundle_name"], row["bundle_id"])
    elif row["decision"] is not None:
        content = _verdict(row, values)
    return StoredEvent(row["cursor"], content)

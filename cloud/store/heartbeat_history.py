"""History of heartbeats: of each device the first one in every 5 minutes, later one in every hour.

A device decides neither how many rows it has nor how long they stay: a slot of time holds one row.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Delete, delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.engine import Store
from cloud.store.retention import in_chunks
from cloud.store.schema import HEARTBEAT_INTEGERS, devices, heartbeat_history
from cloud.store.upsert import insert_new
from shared.status import HeartbeatCounters

SLOT_S = 300.0
SLOTS_THINNED = 12  # of the older slots one in this many keeps its row
THINNED_TIMES = 6  # thinned rows stay this many times as long as all rows
_CATCH_UP_S = 3 * 86_400.0  # slots that a run thins; older ones were thinned by an earlier run
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """Heartbeat of a device at one time; the counters are those since its state was made."""

    received_at_s: float
    counters: HeartbeatCounters
    spool_samples: int
    spool_bytes: int
    health: str
    is_drifting: bool
    certificate_expires_at_s: float


async def note_heartbeat(
    connection: AsyncConnection, device_id: str, received_at_s: float, integers: dict[str, int], **state: Any
) -> None:
    """Keep a heartbeat if it is the first one of its slot, inside its transaction; `state`: health, is_drifting."""
    expires = select(devices.c.certificate_expires_at_s).where(devices.c.device_id == device_id).scalar_subquery()
    values = {
        "device_id": device_id,
        "slot": int(received_at_s // SLOT_S),
        "received_at_s": received_at_s,
        "certificate_expires_at_s": expires,
        **{name: integers[name] for name in HEARTBEAT_INTEGERS},
        **state,
    }
    await insert_new(connection, heartbeat_history, values)


async def history_of(connection: AsyncConnection, device_id: str, since_s: float) -> list[HistoryPoint]:
    """Return the kept heartbeats of a device since a time, oldest first."""
    query = select(heartbeat_history).where(
        heartbeat_history.c.device_id == device_id, heartbeat_history.c.slot >= int(since_s // SLOT_S)
    )
    return [_point(dict(row)) for row in (await connection.execute(query.order_by("slot"))).mappings()]


async def thin_history(store: Store, days: float, now_s: float) -> int:
    """Delete the rows beyond the first one of each hour after `days`, and all after THINNED_TIMES as long."""
    limit_s = now_s - days * _DAY_S
    first, last = int((limit_s - _CATCH_UP_S) // SLOT_S), int(limit_s // SLOT_S)
    end = int((now_s - THINNED_TIMES * days * _DAY_S) // SLOT_S)
    return await in_chunks(store, partial(_thinned, first, last)) + await in_chunks(store, partial(_before, end))


def history_rows_of(device_id: str, rows: int) -> Delete:
    """Return the statement that deletes the next rows of a device."""
    return _delete(select(*_KEY).where(heartbeat_history.c.device_id == device_id).limit(rows))


_KEY = (heartbeat_history.c.device_id, heartbeat_history.c.slot)


def _thinned(first: int, last: int, rows: int) -> Delete:
    slot = heartbeat_history.c.slot
    return _delete(select(*_KEY).where(slot >= first, slot < last, slot % SLOTS_THINNED != 0).limit(rows))


def _before(end: int, rows: int) -> Delete:
    return _delete(select(*_KEY).where(heartbeat_history.c.slot < end).limit(rows))


def _delete(keys: Any) -> Delete:
    return delete(heartbeat_history).where(tuple_(*_KEY).in_(keys))


def _point(row: dict[str, Any]) -> HistoryPoint:
    counters = HeartbeatCounters(**{name: row[name] for name in HeartbeatCounters.model_fields})
    names = ("received_at_s", "spool_samples", "spool_bytes", "health", "is_drifting", "certificate_expires_at_s")
    return HistoryPoint(counters=counters, **{name: row[name] for name in names})

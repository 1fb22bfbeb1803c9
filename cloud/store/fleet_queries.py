"""Read-only queries on devices and the fleet, for the console."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Double, cast, false, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.inbox import inbox_backlog, oldest_arrival
from cloud.store.schema import ALL_DEVICES, devices, heartbeats, inbox, samples, verdict_counts
from cloud.store.sites import by_sites, ids_of_sites, of_sites
from cloud.store.verdict_keys import VerdictFilter, VerdictKey
from cloud.store.verdict_ranges import Span, find_keys
from shared.samples import Decision, Route
from shared.status import Heartbeat, HeartbeatCounters


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One enrolled device with its newest heartbeat.

    `heartbeat_at_s` is None before the first heartbeat, and `heartbeat` is then empty. `clock_offset_s` is the device's
    clock minus the service's, None if unknown. `pending` samples wait for their verdict; `decisions` counts the
    verdicts on the device's samples, `audits` those on its audits. `title` is its name for people, or empty.
    """

    device_id: str
    enrolled_at_s: float
    certificate_expires_at_s: float
    revoked_at_s: float | None
    heartbeat_at_s: float | None
    heartbeat: Heartbeat
    clock_offset_s: float | None
    pending: int
    decisions: dict[Decision, int]
    site: str
    group: str
    title: str = ""
    audits: dict[Decision, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FleetSummary:
    """Figures of the fleet; revoked devices are left out of `devices`, `counters` and `spool_samples`.

    `reporting` devices sent a heartbeat since `alive_since_s`. `pending` samples wait for their verdict, the first of
    them since `oldest_pending_at_s`. `decisions` counts the verdicts; `newest` is the key of the newest one.
    """

    devices: int
    reporting: int
    last_heartbeat_at_s: float | None
    counters: HeartbeatCounters
    spool_samples: int
    pending: int
    oldest_pending_at_s: float | None
    decisions: dict[Decision, int]
    newest: VerdictKey | None


_DEVICE_NAMES = ("device_id", "enrolled_at_s", "certificate_expires_at_s", "revoked_at_s")
_COUNTER_NAMES = tuple(HeartbeatCounters.model_fields)
_DEVICES = select(devices, *(column for column in heartbeats.c if column.name != "device_id")).select_from(
    devices.outerjoin(heartbeats)
)
WhichDevices: TypeAlias = Callable[[ColumnElement[str]], ColumnElement[bool]]
_NOT_STORED = ("counters", "sent_at_ms", "near_copies")  # as fields of the row
_STORED_FIELDS = tuple(name for name in Heartbeat.model_fields if name not in _NOT_STORED)


async def device_rows(
    connection: AsyncConnection,
    *,
    after: str = "",
    size: int | None = None,
    device_id: str = "",
    sites: Collection[str] = (),
) -> tuple[DeviceRow, ...]:
    """Return enrolled devices by id: of these sites, the first `size` after the id `after`, or `device_id` alone."""
    query = _DEVICES.order_by(devices.c.device_id)
    query = query.where(devices.c.removed_at_s.is_(None), *of_sites(sites))
    if after:
        query = query.where(devices.c.device_id > after)
    if device_id:
        query = query.where(devices.c.device_id == device_id)
    rows = await connection.execute(query.limit(size))
    names = tuple(rows.keys())
    found = [dict(zip(names, row, strict=True)) for row in rows]  # half the time of mappings
    if not found:
        return ()
    first, last = found[0]["device_id"], found[-1]["device_id"]
    return await _device_rows(connection, found, lambda column: column.between(first, last))


async def rows_of(connection: AsyncConnection, device_ids: Sequence[str]) -> tuple[DeviceRow, ...]:
    """Return these devices by id."""
    query = _DEVICES.where(devices.c.device_id.in_(device_ids)).order_by(devices.c.device_id)
    found = [dict(row) for row in (await connection.execute(query)).mappings()]
    return await _device_rows(connection, found, lambda column: column.in_(device_ids))


async def _device_rows(
    connection: AsyncConnection, found: list[dict[str, Any]], which: WhichDevices
) -> tuple[DeviceRow, ...]:
    """Return the rows with the counts of their samples and verdicts; `which` are the conditions on a device id."""
    pending = await _pending_by_device(connection, which)
    decisions = await _decisions_by_device(connection, which(verdict_counts.c.device_id))
    audits = await _decisions_by_device(
        connection, which(verdict_counts.c.device_id) & (verdict_counts.c.route == Route.AUDIT.value)
    )
    return tuple(_device_row(row, pending, decisions, audits) for row in found)


async def device_ids(
    connection: AsyncConnection, limit: int | None = None, sites: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the first `limit` ids of enrolled devices of these sites (None: all)."""
    query = select(devices.c.device_id).where(devices.c.removed_at_s.is_(None), *of_sites(sites))
    query = query.order_by(devices.c.device_id).limit(limit)
    return tuple((await connection.execute(query)).scalars())


async def fleet_summary(
    connection: AsyncConnection, *, alive_since_s: float, sites: Collection[str] = ()
) -> FleetSummary:
    """Return the figures of the devices of these sites; sums are over those that are not revoked."""
    # Sum as floating point: a device may send integers whose sum overflows 64 bits.
    summed = (*_COUNTER_NAMES, "spool_samples")
    sums = [func.coalesce(func.sum(cast(heartbeats.c[name], Double)), 0.0) for name in summed]
    alive = func.count().filter(heartbeats.c.received_at_s >= alive_since_s)
    last = func.max(heartbeats.c.received_at_s)
    query = select(func.count(), alive, last, *sums).select_from(devices.outerjoin(heartbeats))
    counted, reporting, last_at_s, *totals, spooled = (
        await connection.execute(query.where(devices.c.revoked_at_s.is_(None), *of_sites(sites)))
    ).one()
    pending, oldest_at_s = await (_pending_of_sites(connection, sites) if sites else _pending(connection))
    newest = await find_keys(connection, VerdictFilter(sites=tuple(sites)), Span(), 1)
    return FleetSummary(
        devices=counted,
        reporting=reporting,
        last_heartbeat_at_s=last_at_s,
        counters=HeartbeatCounters(**{name: int(total) for name, total in zip(_COUNTER_NAMES, totals, strict=True)}),
        spool_samples=int(spooled),
        pending=pending,
        oldest_pending_at_s=oldest_at_s,
        decisions=await _decisions(connection, sites),
        newest=newest.keys[0] if newest.keys else None,
    )


async def _pending_by_device(connection: AsyncConnection, which: WhichDevices) -> dict[str, int]:
    """Return the number of waiting samples, by device."""
    query = select(samples.c.device_id, func.count().label("waiting")).group_by(samples.c.device_id)
    query = query.where(samples.c.judged == false(), which(samples.c.device_id))
    pending = {row.device_id: row.waiting for row in await connection.execute(query)}
    for device_id, count, _ in await inbox_backlog(connection):
        pending[device_id] = pending.get(device_id, 0) + count
    return pending


async def _pending(connection: AsyncConnection) -> tuple[int, float | None]:
    """Return the number of samples that wait, and when the first of them arrived."""
    query = select(func.count(), func.min(samples.c.number)).where(samples.c.judged == false())  # the index alone
    count, first = (await connection.execute(query)).one()
    received_at_s = select(samples.c.received_at_s).where(samples.c.number == first)
    oldest_s = (await connection.execute(received_at_s)).scalar_one() if count else None
    if packed := sum(waiting for _, waiting, _ in await inbox_backlog(connection)):
        arrived_s = await oldest_arrival(connection)
        oldest_s = min((at_s for at_s in (oldest_s, arrived_s) if at_s is not None), default=None)
    return count + packed, oldest_s


async def _pending_of_sites(connection: AsyncConnection, sites: Collection[str]) -> tuple[int, float | None]:
    """Return the same for the devices of some sites."""
    waits = (samples.c.judged == false(), *by_sites(samples.c.device_id, sites))
    count, first_s = (
        await connection.execute(select(func.count(), func.min(samples.c.received_at_s)).where(*waits))
    ).one()
    total = func.coalesce(func.sum(inbox.c.samples), 0)
    packed = select(total, func.min(inbox.c.received_at_s)).where(*by_sites(inbox.c.device_id, sites))
    in_inbox, arrived_s = (await connection.execute(packed)).one()
    return count + int(in_inbox), min((at_s for at_s in (first_s, arrived_s) if at_s is not None), default=None)


async def _decisions(connection: AsyncConnection, sites: Collection[str]) -> dict[Decision, int]:
    """Return the number of verdicts on samples of these sites by decision."""
    if not sites:
        of_all = verdict_counts.c.device_id == ALL_DEVICES
        return (await _decisions_by_device(connection, of_all)).get(ALL_DEVICES, {})
    found = await _decisions_by_device(connection, verdict_counts.c.device_id.in_(ids_of_sites(sites)))
    totals: dict[Decision, int] = {}
    for counts in found.values():
        for decision, count in counts.items():
            totals[decision] = totals.get(decision, 0) + count
    return totals


async def _decisions_by_device(
    connection: AsyncConnection, which: ColumnElement[bool]
) -> dict[str, dict[Decision, int]]:
    """Return the number of verdicts by device and decision, from the counts that the store keeps."""
    columns = (verdict_counts.c.device_id, verdict_counts.c.decision)
    query = select(*columns, func.sum(verdict_counts.c.verdicts)).where(which).group_by(*columns)
    counts: dict[str, dict[Decision, int]] = {}
    for device_id, decision, count in await connection.execute(query):
        if count:
            counts.setdefault(device_id, {})[Decision(decision)] = int(count)
    return counts


def _device_row(
    row: dict[str, Any],
    pending: dict[str, int],
    decisions: dict[str, dict[Decision, int]],
    audits: dict[str, dict[Decision, int]],
) -> DeviceRow:
    heartbeat_at_s = row["received_at_s"]
    return DeviceRow(
        **{name: row[name] for name in _DEVICE_NAMES},
        heartbeat_at_s=heartbeat_at_s,
        heartbeat=_heartbeat(row) if heartbeat_at_s is not None else Heartbeat(),
        clock_offset_s=row["clock_offset_s"],
        pending=pending.get(row["device_id"], 0),
        decisions=decisions.get(row["device_id"], {}),
        site=row["site"],
        group=row["group_name"],
        title=row["title"],
        audits=audits.get(row["device_id"], {}),
    )


def _heartbeat(row: dict[str, Any]) -> Heartbeat:
    values = {name: row[name] for name in _STORED_FIELDS}
    values["counters"] = {name: row[name] for name in _COUNTER_NAMES}
    return Heartbeat.model_validate(values)

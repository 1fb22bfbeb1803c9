"""One page of the devices in any order, and how many devices are in each state: sorted and counted by the store."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Double, Select, case, cast, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.device_health import HEALTH_ORDER, HEALTHY, NEVER_SEEN, REVOKED, SILENT
from cloud.store.fleet_queries import DeviceRow, rows_of
from cloud.store.schema import devices, heartbeats, verdict_counts
from cloud.store.sites import of_sites
from shared.samples import Decision

MAX_TEXT_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class FleetQuery:
    """Part and order of the devices; "" does not restrict. `text` is a part of an id or a name, in any case."""

    health: str = ""
    site: str = ""
    group: str = ""
    text: str = ""
    order: str = "health"
    is_descending: bool = False
    skip: int = 0
    size: int = 100


@dataclass(frozen=True, slots=True)
class FleetPage:
    """Devices of a page, and all that match: `by_health` leaves out the filter of health, `places` every filter."""

    rows: tuple[DeviceRow, ...]
    matching: int
    by_health: Mapping[str, int]
    sites: tuple[str, ...]
    groups: tuple[str, ...]


async def fleet_page(
    connection: AsyncConnection, query: FleetQuery, *, silent_since_s: float, sites: Collection[str] = ()
) -> FleetPage:
    """Return a page of the devices of these sites; a device without a heartbeat since `silent_since_s` is silent."""
    health = health_column(silent_since_s)
    listed = (devices.c.removed_at_s.is_(None), *of_sites(sites))
    wanted = (*listed, *_conditions(query))
    counted = select(health, func.count()).select_from(_JOINED).where(*wanted).group_by(health)
    by_health = {name: int(count) for name, count in await connection.execute(counted)}
    places = (await connection.execute(select(devices.c.site, devices.c.group_name).where(*listed).distinct())).all()
    chosen = (*wanted, health == query.health) if query.health else wanted
    ordered = select(devices.c.device_id).select_from(_JOINED).where(*chosen).order_by(*_order(query, health))
    ids = (await connection.execute(ordered.limit(query.size).offset(query.skip))).scalars().all()
    rows = {row.device_id: row for row in await rows_of(connection, ids)}
    return FleetPage(
        rows=tuple(rows[device_id] for device_id in ids),
        matching=by_health.get(query.health, 0) if query.health else sum(by_health.values()),
        by_health={name: by_health[name] for name in HEALTH_ORDER if name in by_health},
        sites=tuple(sorted({place.site for place in places})),
        groups=tuple(sorted({place.group_name for place in places})),
    )


async def matching_ids(
    connection: AsyncConnection, query: FleetQuery, *, silent_since_s: float, sites: Collection[str] = (), limit: int
) -> list[str]:
    """Return the ids of the devices of these sites that match, by id, at most `limit`; order and page do not count."""
    wanted = (devices.c.removed_at_s.is_(None), *of_sites(sites), *_conditions(query))
    if query.health:
        wanted = (*wanted, health_column(silent_since_s) == query.health)
    found = select(devices.c.device_id).select_from(_JOINED).where(*wanted).order_by(devices.c.device_id).limit(limit)
    return list((await connection.execute(found)).scalars())


def health_column(silent_since_s: float) -> ColumnElement[str]:
    """Return the state of a device as an expression over devices and their heartbeats."""
    return case(
        (devices.c.revoked_at_s.is_not(None), literal(REVOKED)),
        (heartbeats.c.received_at_s.is_(None), literal(NEVER_SEEN)),
        (heartbeats.c.received_at_s < silent_since_s, literal(SILENT)),
        (heartbeats.c.health == "", literal(HEALTHY)),  # of an earlier version; the next heartbeat brings it
        else_=heartbeats.c.health,
    )


_JOINED = devices.outerjoin(heartbeats)


def _share(part: ColumnElement[Any], whole: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(part, Double) / func.nullif(cast(whole, Double), 0.0)


def _anomalous() -> ColumnElement[Any]:
    """Return the number of anomalous verdicts of a device."""
    of_device = verdict_counts.c.device_id == devices.c.device_id
    counted: Select[Any] = select(func.sum(verdict_counts.c.verdicts)).where(
        of_device, verdict_counts.c.decision == Decision.ANOMALOUS.value
    )
    return counted.scalar_subquery()


_BEAT = heartbeats.c
_SENT = cast(_BEAT.samples_forwarded, Double) + cast(_BEAT.samples_audited, Double)  # the sum may exceed 64 bits
ORDERS: Mapping[str, ColumnElement[Any]] = {
    "device": devices.c.device_id,
    "site": devices.c.site,
    "group": devices.c.group_name,
    "screened": _BEAT.samples_screened,
    "sent": _share(_SENT, _BEAT.samples_screened),
    "alarms": _share(_BEAT.samples_alarmed, _BEAT.samples_screened),
    "upload": _share(_BEAT.bytes_uploaded, _BEAT.bytes_screened),
    "spool": _BEAT.spool_samples,
    "dropped": _BEAT.samples_dropped,
    "anomalous": _anomalous(),
    "seen": _BEAT.received_at_s,
    "certificate": devices.c.certificate_expires_at_s,
}
"""Values that devices can be sorted by, beside their state, by name."""


def _order(query: FleetQuery, health: ColumnElement[str]) -> list[ColumnElement[Any]]:
    """Return the order of the page; devices without the value come last, and equal ones by state and id."""
    rank = case(*((health == name, place) for place, name in enumerate(HEALTH_ORDER)), else_=len(HEALTH_ORDER))
    value = ORDERS.get(query.order, rank)
    first = value.desc() if query.is_descending else value.asc()
    return [first.nulls_last(), rank.asc(), devices.c.device_id.asc()]


def _conditions(query: FleetQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.site:
        conditions.append(devices.c.site == query.site)
    if query.group:
        conditions.append(devices.c.group_name == query.group)
    if text := query.text.strip()[:MAX_TEXT_CHARACTERS]:
        named = (column.icontains(text, autoescape=True) for column in (devices.c.device_id, devices.c.title))
        conditions.append(or_(*named))
    return conditions

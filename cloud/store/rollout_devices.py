"""Devices and verdicts of a rollout, as its gates compare them."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.rollouts.observation import ScreeningCounts, Tally
from cloud.store.releases import groups_by_name
from cloud.store.rollouts import StagedRollout
from cloud.store.schema import devices, heartbeats, rollout_devices, samples, verdicts
from cloud.store.upsert import upsert
from shared.samples import Decision, Route
from shared.status import BUNDLE_WARNING, WAITING, HeartbeatCounters, RunningBundle

VERDICTS_AT_ONCE = 5000
DEVICES_AT_ONCE = 500
_BROKEN = ("failed", WAITING)


@dataclass(frozen=True, slots=True)
class CountedVerdicts:
    """Tallies of the two bundles so far, and the key of the last counted verdict.

    `added` holds what this step added to the tally of the new bundle, by device.
    """

    tallies: dict[str, Tally]
    added: dict[str, Tally]
    last: tuple[float, int]


@dataclass(frozen=True, slots=True)
class Report:
    """Newest heartbeat of a device that runs bundles of one name, reduced to what gates compare.

    `bundle_ids` run at its sources of that name; `broken` if one of them delivers nothing because of its bundle or an
    error. `warnings` are those about bundles.
    """

    device_id: str
    received_at_s: float
    bundle_ids: frozenset[str]
    broken: bool
    warnings: tuple[str, ...]
    counts: ScreeningCounts


@dataclass(frozen=True, slots=True)
class Member:
    """Device in a rollout, with its counts at the moments that gates compare.

    `first` at the first heartbeat during the rollout, `swapped` at the first one that names the new bundle. A stage
    includes it since `wanted_at_s`; `warnings` about bundles were there at that time. `tally` counts its verdicts
    with the new bundle.
    """

    device_id: str
    first: ScreeningCounts
    wanted_at_s: float | None = None
    warnings: tuple[str, ...] = ()
    swapped: ScreeningCounts | None = None
    tally: Tally = field(default_factory=Tally)


async def reports(connection: AsyncConnection, name: str) -> list[Report]:
    """Return the newest heartbeats of the devices that run the name and get its bundles; not of revoked ones."""
    groups = (await groups_by_name(connection)).get(name)
    counters = (heartbeats.c[counter] for counter in ("samples_screened", "samples_forwarded", "samples_alarmed"))
    query = select(devices.c.device_id, heartbeats.c.received_at_s, heartbeats.c.running, heartbeats.c.warnings)
    query = query.add_columns(*counters).join(heartbeats).where(devices.c.revoked_at_s.is_(None))
    if groups is not None:
        query = query.where(devices.c.group_name.in_(groups))
    pages = _pages(connection, query, devices.c.device_id)
    return [report async for page in pages for row in page if (report := _report(row, name)) is not None]


async def members(connection: AsyncConnection, rollout: StagedRollout) -> dict[str, Member]:
    """Return the known devices of a rollout by id."""
    query = select(rollout_devices).where(rollout_devices.c.rollout == rollout.number)
    return {
        row["device_id"]: Member(
            row["device_id"],
            ScreeningCounts(*row["first"]),
            row["wanted_at_s"],
            tuple(row["warnings"]),
            ScreeningCounts(*row["swapped"]) if row["swapped"] is not None else None,
            Tally(*row["tally"]) if row["tally"] is not None else Tally(),
        )
        async for page in _pages(connection, query, rollout_devices.c.device_id)
        for row in page
    }


async def save_members(connection: AsyncConnection, rollout: StagedRollout, changed: Iterable[Member]) -> None:
    """Store new and changed devices of a rollout."""
    rows = [
        {
            "rollout": rollout.number,
            "device_id": member.device_id,
            "first": astuple(member.first),
            "wanted_at_s": member.wanted_at_s,
            "warnings": member.warnings,
            "swapped": astuple(member.swapped) if member.swapped is not None else None,
            "tally": astuple(member.tally),
        }
        for member in changed
    ]
    await upsert(connection, rollout_devices, rows)


async def count_verdicts(connection: AsyncConnection, rollout: StagedRollout, until_s: float) -> CountedVerdicts:
    """Return the tallies including the next verdicts before `until_s`.

    Samples of the new bundle count only from devices that a stage includes, so that no other device can speak for it.
    At most `VERDICTS_AT_ONCE` verdicts are read; the next call goes on.
    """
    key = tuple_(verdicts.c.judged_at_s, verdicts.c.number)
    after = (rollout.counted_judged_at_s, rollout.counted_number)
    bundle_ids = (rollout.bundle_id, rollout.before_bundle_id)
    query = (
        select(
            verdicts.c.judged_at_s,
            verdicts.c.number,
            verdicts.c.device_id,
            verdicts.c.route,
            verdicts.c.decision,
            samples.c.edge_bundle_id,
        )
        .join(samples, samples.c.number == verdicts.c.number)
        .where(verdicts.c.judged_at_s >= after[0], key > after, verdicts.c.judged_at_s < until_s)
        .order_by(verdicts.c.judged_at_s, verdicts.c.number)
        .limit(VERDICTS_AT_ONCE)
    )
    tallies = {bundle_id: rollout.tallies.get(bundle_id, Tally()) for bundle_id in bundle_ids}
    added: dict[str, Tally] = {}
    for judged_at_s, number, device_id, route, decision, bundle_id in await connection.execute(query):
        after = (judged_at_s, number)
        if bundle_id == rollout.before_bundle_id:
            tallies[bundle_id] = _with(tallies[bundle_id], Route(route), Decision(decision))
        elif bundle_id == rollout.bundle_id and rollout.includes(str(device_id)):
            tallies[bundle_id] = _with(tallies[bundle_id], Route(route), Decision(decision))
            added[device_id] = _with(added.get(device_id, Tally()), Route(route), Decision(decision))
    return CountedVerdicts(tallies, added, after)


async def _pages(
    connection: AsyncConnection, query: Select[Any], key: ColumnElement[str]
) -> AsyncIterator[Sequence[RowMapping]]:
    """Yield the rows of a query in pages, so that other calls of the service run between them."""
    last = ""
    while True:
        page = query.where(key > last).order_by(key).limit(DEVICES_AT_ONCE)
        rows = (await connection.execute(page)).mappings().all()
        yield rows
        if len(rows) < DEVICES_AT_ONCE:
            return
        last = rows[-1]["device_id"]
        await asyncio.sleep(0)


def _with(tally: Tally, route: Route, decision: Decision) -> Tally:
    """Return the tally with one more verdict; undecided ones say nothing about the screener."""
    if decision is Decision.UNDECIDED:
        return tally
    if route in (Route.FORWARD, Route.ALARM):
        dismissed = tally.dismissed + (decision is Decision.NORMAL)
        return replace(tally, suspicious=tally.suspicious + 1, dismissed=dismissed)
    if route is Route.AUDIT:
        return replace(tally, audits=tally.audits + 1, missed=tally.missed + (decision is Decision.ANOMALOUS))
    return tally


def _report(row: Mapping[Any, Any], name: str) -> Report | None:
    running = [RunningBundle.model_validate(item) for item in row["running"] if item["bundle_name"] == name]
    if not running:
        return None
    counters = HeartbeatCounters(**{name: row[name] for name in HeartbeatCounters.model_fields if name in row})
    return Report(
        row["device_id"],
        row["received_at_s"],
        frozenset(item.bundle_id for item in running),
        any(item.state.startswith(_BROKEN) for item in running),
        tuple(text for text in row["warnings"] if text.startswith(BUNDLE_WARNING)),
        ScreeningCounts.of(counters),
    )

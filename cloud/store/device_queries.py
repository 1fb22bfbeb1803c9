"""Read-only queries on one device: its newest samples, their latency, and its audits by bundle."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.queries import verdict_page
from cloud.store.schema import samples, sources, verdicts
from cloud.store.system_queries import VerdictTimes
from cloud.store.verdict_columns import VerdictRow
from cloud.store.verdict_keys import VerdictFilter
from cloud.store.verdict_ranges import Span, find_keys
from shared.samples import Decision, Route

MAX_AUDITS, MAX_TIMES, MAX_SOURCES = 2000, 500, 12
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class BundleAudits:
    """Verdicts on the audits of the samples that one bundle screened, by decision."""

    bundle_id: str
    decisions: dict[Decision, int]


async def audits_by_bundle(connection: AsyncConnection, device_id: str) -> list[BundleAudits]:
    """Return the newest MAX_AUDITS audits of a device by the bundle that screened them, the newest bundle first."""
    counts: dict[str, dict[Decision, int]] = {}
    newest: dict[str, int] = {}
    found = await find_keys(connection, VerdictFilter(device_id, route=Route.AUDIT), Span(), MAX_AUDITS)
    for first in range(0, len(found.keys), _CHUNK):
        numbers = [key.number for key in found.keys[first : first + _CHUNK]]
        query = (
            select(samples.c.edge_bundle_id, verdicts.c.decision, func.count(), func.max(samples.c.number))
            .join(verdicts, verdicts.c.number == samples.c.number)
            .where(samples.c.number.in_(numbers))
            .group_by(samples.c.edge_bundle_id, verdicts.c.decision)
        )
        for bundle_id, decision, count, number in await connection.execute(query):
            of_bundle = counts.setdefault(bundle_id, {})
            of_bundle[Decision(decision)] = of_bundle.get(Decision(decision), 0) + count
            newest[bundle_id] = max(newest.get(bundle_id, 0), number)
    return [BundleAudits(name, counts[name]) for name in sorted(counts, key=lambda name: -newest[name])]


async def times_of_device(connection: AsyncConnection, device_id: str) -> list[VerdictTimes]:
    """Return the times of the newest verdicts of a device, newest first."""
    found = await find_keys(connection, VerdictFilter(device_id), Span(), MAX_TIMES)
    times = {}
    numbers = [key.number for key in found.keys]
    query = select(samples.c.number, samples.c.captured_at_s, samples.c.received_at_s, verdicts.c.judged_at_s).join(
        verdicts, verdicts.c.number == samples.c.number
    )
    for number, *row in await connection.execute(query.where(samples.c.number.in_(numbers))):
        times[number] = VerdictTimes(*row)
    return [times[number] for number in numbers if number in times]


async def newest_of_sources(connection: AsyncConnection, device_id: str) -> list[VerdictRow]:
    """Return the newest stored sample of each source of a device, by source."""
    query = select(sources.c.source_key).where(sources.c.device_id == device_id).order_by(sources.c.source_key)
    found = []
    for source_key in (await connection.execute(query.limit(MAX_SOURCES))).scalars():
        if row := await _newest_of(connection, device_id, source_key):
            found.append(row)
    return found


async def _newest_of(connection: AsyncConnection, device_id: str, source_key: str) -> VerdictRow | None:
    """Return the newest sample of one source among the newest of the device; other sources may begin alike."""
    page = await verdict_page(connection, VerdictFilter(device_id, text=source_key), size=20)
    return next((row for row in page.rows if row.source_id.lower() == source_key), None)

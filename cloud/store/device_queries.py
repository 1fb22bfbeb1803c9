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
    """Judged audits of the samples that one bundle screened, and the anomalous ones among them."""

    bundle_id: str
    judged: int
    anomalous: int


async def audits_by_bundle(connection: AsyncConnection, device_id: str) -> list[BundleAudits]:
    """Return the newest MAX_AUDITS audits of a device by the bundle that screened them, the newest bundle first."""
    counts: dict[str, list[int]] = {}
    found = await find_keys(connection, VerdictFilter(device_id, route=Route.AUDIT), Span(), MAX_AUDITS)
    for first in range(0, len(found.keys), _CHUNK):
        numbers = [key.number for key in found.keys[first : first + _CHUNK]]
        query = (
            select(samples.c.edge_bundle_id, verdicts.c.decision, func.count(), func.max(samples.c.number))
            .join(verdicts, verdicts.c.number == samples.c.number)
            .where(samples.c.number.in_(numbers), verdicts.c.decision != Decision.UNDECIDED.value)
            .group_by(samples.c.edge_bundle_id, verdicts.c.decision)
        )
        for bundle_id, decision, count, newest in await connection.execute(query):
            totals = counts.setdefault(bundle_id, [0, 0, 0])
            totals[0] += count
            totals[1] += count if decision == Decision.ANOMALOUS.value else 0
            totals[2] = max(totals[2], newest)
    ordered = sorted(counts.items(), key=lambda item: -item[1][2])
    return [BundleAudits(bundle_id, judged, anomalous) for bundle_id, (judged, anomalous, _) in ordered]


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

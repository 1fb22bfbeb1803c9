"""Read-only queries on the work of the service: throughput, latency, queues and the size of the store."""

from dataclasses import dataclass

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.inbox import inbox_backlog
from cloud.store.schema import deliveries, devices, samples, verdicts

MAX_COUNTED = 200_000  # verdicts that one look counts
MAX_QUEUES = 10
MAX_LATENCIES = 1000


@dataclass(frozen=True, slots=True)
class VerdictTimes:
    """Times of one verdict, in seconds since the epoch."""

    captured_at_s: float
    received_at_s: float
    judged_at_s: float


async def verdicts_since(connection: AsyncConnection, since_s: float) -> int:
    """Return the number of verdicts since a time, up to MAX_COUNTED."""
    recent = select(verdicts.c.number).where(verdicts.c.judged_at_s >= since_s).limit(MAX_COUNTED).subquery()
    return int((await connection.execute(select(func.count()).select_from(recent))).scalar_one())


async def newest_times(connection: AsyncConnection) -> list[VerdictTimes]:
    """Return the times of the newest verdicts, newest first."""
    newest = select(verdicts.c.number, verdicts.c.judged_at_s).order_by(
        verdicts.c.judged_at_s.desc(), verdicts.c.number.desc()
    )
    recent = newest.limit(MAX_LATENCIES).subquery()
    query = select(samples.c.captured_at_s, samples.c.received_at_s, recent.c.judged_at_s).join(
        recent, recent.c.number == samples.c.number
    )
    found = [VerdictTimes(*row) for row in await connection.execute(query)]
    return sorted(found, key=lambda times: times.judged_at_s, reverse=True)


async def longest_queues(connection: AsyncConnection) -> list[tuple[str, int]]:
    """Return the devices with the most samples that wait for their verdict, with their number."""
    query = select(samples.c.device_id, func.count()).where(samples.c.judged.is_(False)).group_by(samples.c.device_id)
    waiting = {device_id: int(count) for device_id, count in await connection.execute(query)}
    for device_id, count, _ in await inbox_backlog(connection):
        waiting[device_id] = waiting.get(device_id, 0) + count
    return sorted(waiting.items(), key=lambda item: (-item[1], item[0]))[:MAX_QUEUES]


async def waiting_messages(connection: AsyncConnection) -> int:
    """Return the number of messages that wait for webhooks, brokers and mail servers."""
    return int((await connection.execute(select(func.count()).select_from(deliveries))).scalar_one())


async def oldest_verdict(connection: AsyncConnection) -> float | None:
    """Return the time of the oldest verdict."""
    found: float | None = (await connection.execute(select(func.min(verdicts.c.judged_at_s)))).scalar_one()
    return found


async def store_bytes(connection: AsyncConnection) -> int:
    """Return the size of the database."""
    if connection.dialect.name == "postgresql":
        return int((await connection.execute(text("SELECT pg_database_size(current_database())"))).scalar_one())
    pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
    return int(pages) * int((await connection.exec_driver_sql("PRAGMA page_size")).scalar_one())


async def known_sites(connection: AsyncConnection) -> list[str]:
    """Return the sites that have a device."""
    query = select(devices.c.site).where(devices.c.removed_at_s.is_(None)).distinct().order_by(devices.c.site)
    return list((await connection.execute(query)).scalars())

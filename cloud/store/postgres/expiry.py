"""Retention by partitions: the lowest partition goes as a whole when all its rows have expired.

Rows with a label are copied first (`cloud.store.postgres.keeping`). The partition is detached under locks for which
others wait SWITCH_WAIT_MS at most; then nobody else uses it, and its rows are counted, and their ids deleted in small
steps, before it is dropped. A detached table has the prefix `expired_`, so that the next run ends what a killed process
began.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from cloud.store.postgres.connecting import WRITER_LOCK, connect
from cloud.store.postgres.keeping import NUMBERS, Keeping, discard
from cloud.store.postgres.partitions import (
    LARGE_TABLES,
    SWITCH_WAIT_MS,
    Partition,
    keep_ahead,
    partitions_of,
    pass_judged,
)
from shared.backoff import Backoff
from shared.logs import EventLog

KEEPS_LONGER = 0.2  # more than the part of the stored numbers that a partition holds
ATTEMPTS, RETRY_MIN_S, RETRY_MAX_S = 10, 0.1, 2.0
IDS_AT_ONCE, PAUSE_S = 2000, 0.05
MOST_CATCH_UPS = 1000  # while others label or remove samples of the partition faster than they are copied
_EXPIRED = "expired_"

_NEWEST = "SELECT judged_at_s FROM verdicts WHERE number >= $1 AND number < $2 ORDER BY number DESC LIMIT 1"
# The sum keeps the server from looking for the maximum in the index of all times.
_LATEST = "SELECT max(judged_at_s + 0) FROM verdicts WHERE number >= $1 AND number < $2"
_JUDGED_SINCE = "SELECT EXISTS (SELECT FROM verdicts WHERE judged_at_s >= $3 AND number >= $1 AND number < $2)"
_WAITS = "SELECT EXISTS (SELECT FROM samples WHERE NOT judged AND number >= $1 AND number < $2)"
_NOT_KEPT = f"NOT EXISTS (SELECT FROM {NUMBERS} AS kept WHERE kept.number = {{number}})"
_GONE = _NOT_KEPT.format(number="gone.number")
_DELETE_SHARES = f"""
DELETE FROM share_links WHERE sample_number BETWEEN $1 AND $2 AND {_NOT_KEPT.format(number="sample_number")}"""
_LEFT = rf"""
SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
AND relname ~ '^{_EXPIRED}(samples|verdicts|anomaly_maps|payloads)_\d+$' ORDER BY relname"""
_COUNTS = f"""
SELECT device_id, modality, route, decision, count(*) AS verdicts FROM {{table}} AS gone WHERE {_GONE}
GROUP BY GROUPING SETS ((device_id, modality, route, decision), (modality, route, decision))"""
_UNCOUNT = """
UPDATE verdict_counts AS counted SET verdicts = counted.verdicts - gone.verdicts
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int8[])
  AS gone(device_id, modality, route, decision, verdicts)
WHERE (counted.device_id, counted.modality, counted.route, counted.decision)
  = (gone.device_id, gone.modality, gone.route, gone.decision)"""
_DELETE_IDS = f"""
DELETE FROM sample_keys WHERE sample_id = ANY(ARRAY(
  SELECT sample_id FROM {{table}} AS gone WHERE number >= $1 AND number < $2 AND {_GONE}
)) AND number >= $1 AND number < $2"""

_LOG = EventLog("retention")


async def keep_room(url: str) -> None:
    """Make partitions ahead, and let the queue pass those without a waiting sample."""
    async with _connected(url) as driver:
        is_new = await keep_ahead(driver)
        with contextlib.suppress(asyncpg.LockNotAvailableError):  # the next call tries again
            await pass_judged(driver)
        if is_new:
            await _analyze(driver)


async def drop_expired(url: str, limits: Mapping[str, float]) -> dict[str, int]:
    """Drop the partitions of each group whose rows have all expired; see `Store.drop_expired`."""
    async with _connected(url) as driver:
        removed = await _finish(driver)
        for kind, limit_s in {
            "payloads": max(limits.values(), default=None),
            "verdicts": limits.get("verdicts"),
        }.items():
            while limit_s is not None and await _detach_lowest(driver, kind, limit_s):
                for name, count in (await _finish(driver)).items():
                    removed[name] = removed.get(name, 0) + count
        if removed:
            await _analyze(driver)
    return removed


@contextlib.asynccontextmanager
async def _connected(url: str) -> Any:
    driver = await connect(url)
    try:
        yield driver
    finally:
        driver.terminate()


async def _analyze(driver: Any) -> None:
    """Collect the statistics of the tables as a whole, which autovacuum never does for partitioned ones."""
    for table in (table for tables in LARGE_TABLES.values() for table in tables):
        await driver.execute(f"ANALYZE {table}")


async def _detach_lowest(driver: Any, kind: str, limit_s: float) -> bool:
    """Detach the lowest partition of these tables if all its rows have expired; return whether it did."""
    tables = LARGE_TABLES[kind]
    found = await partitions_of(driver, tables[0])
    last = await driver.fetchval("SELECT last_value FROM samples_number_seq")
    if len(found) < 3 or found[0].first is not None or found[1].end > last:
        return False
    rest, lowest = found[:2]
    if not await _has_expired(driver, lowest, limit_s):
        return False
    if kind == "verdicts" and (await partitions_of(driver, "payloads"))[0].end < lowest.end:
        return False  # no payload may stay without its sample
    keeping, is_copied = Keeping(driver, tables, rest, lowest), False
    backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
    for _ in range(ATTEMPTS):
        with contextlib.suppress(asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError):
            if not is_copied:
                await keeping.copy()
                is_copied = True
            await _catch_up(driver, keeping)
            async with driver.transaction():
                is_switched = await _switch(driver, tables, (rest, lowest), keeping, limit_s)
            break
        await asyncio.sleep(backoff.next_s())
    else:
        is_switched = False
        advice = "retention tries again in its next run"
        _LOG.warning("partition_in_use", partition=lowest.name(tables[0]), advice=advice)
    if not is_switched:
        with contextlib.suppress(asyncpg.LockNotAvailableError):  # the next run discards it
            await discard(driver)
    return is_switched


async def _catch_up(driver: Any, keeping: Keeping) -> None:
    for _ in range(MOST_CATCH_UPS):
        async with driver.transaction():
            if await keeping.catch_up():
                return
        await asyncio.sleep(PAUSE_S)


async def _has_expired(driver: Any, partition: Partition, limit_s: float) -> bool:
    bounds = (partition.first, partition.end)
    newest_s = await driver.fetchval(_NEWEST, *bounds)
    if newest_s is not None and newest_s >= limit_s:  # saves reading the times of all
        return False
    latest_s = await driver.fetchval(_LATEST, *bounds)
    return (latest_s is None or latest_s < limit_s) and not await driver.fetchval(_WAITS, *bounds)


async def _switch(
    driver: Any, tables: Sequence[str], parts: tuple[Partition, Partition], keeping: Keeping, limit_s: float
) -> bool:
    """Detach the partition, whose rows with a label stay, in the transaction of the caller; return whether it did.

    Its last sample may have been judged since the partition was looked at; so that is repeated under the locks.
    """
    await driver.execute(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")  # no label or verdict comes meanwhile
    parents = [f"ONLY {table}" for table in tables]
    names = [part.name(table) for table in tables for part in parts]
    await driver.execute(f"SET LOCAL statement_timeout = {SWITCH_WAIT_MS}")
    await driver.execute(f"LOCK TABLE {', '.join([*parents, *names])} IN ACCESS EXCLUSIVE MODE")
    await driver.execute("SET LOCAL statement_timeout = 0")
    started_s = time.perf_counter()
    bounds = (parts[1].first, parts[1].end)
    if await driver.fetchval(_WAITS, *bounds) or await driver.fetchval(_JUDGED_SINCE, *bounds, limit_s):
        return False
    if not await keeping.catch_up():
        return False
    await keeping.exchange()
    for table in tables:
        old = parts[1].name(table)
        await driver.execute(f"ALTER TABLE {old} RENAME TO {_EXPIRED}{old}")
    _LOG.info("partition_detached", partition=parts[1].name(tables[0]), locked_s=time.perf_counter() - started_s)
    return True


async def _finish(driver: Any) -> dict[str, int]:
    """Drop the detached tables with the other rows of their samples; return the number of rows by table."""
    removed: dict[str, int] = {}
    names = [row[0] for row in await driver.fetch(_LEFT)]
    if names:  # a table detached by an older version has no kept rows
        await driver.execute(f"CREATE TABLE IF NOT EXISTS {NUMBERS} (number bigint PRIMARY KEY)")
        await driver.execute(f"ANALYZE {NUMBERS}")
    for name in names:
        table = name.removeprefix(_EXPIRED).rpartition("_")[0]
        if table == "verdicts":
            removed[table] = removed.get(table, 0) + await _drop_verdicts(driver, name)
            continue
        if table == "payloads":
            count = await driver.fetchval(f"SELECT count(*) FROM {name} AS gone WHERE {_GONE}")
            removed[table] = removed.get(table, 0) + count
        if table == "samples":
            await _delete_references(driver, name)
        await driver.execute(f"DROP TABLE {name}")
    with contextlib.suppress(asyncpg.LockNotAvailableError):  # the next run discards it
        await discard(driver)
    return removed


async def _drop_verdicts(driver: Any, name: str) -> int:
    """Drop detached verdicts and take them out of the counts; return their number."""
    counts = [tuple(row) for row in await driver.fetch(_COUNTS.format(table=name))]
    async with driver.transaction():
        await driver.execute(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")
        columns = [list(column) for column in zip(*counts, strict=True)]
        if columns:
            devices = [device_id or "" for device_id in columns[0]]
            await driver.execute(_UNCOUNT, devices, *columns[1:])
        await driver.execute(f"DROP TABLE {name}")
    return sum(row[4] for row in counts if row[0] is None)


async def _delete_references(driver: Any, name: str) -> None:
    """Delete the ids of detached samples, a few at a time, and the links to them."""
    first, last = await driver.fetchrow(f"SELECT min(number), max(number) FROM {name}")
    if first is None:
        return
    await driver.execute(_DELETE_SHARES, first, last)
    statement = await driver.prepare(_DELETE_IDS.format(table=name))
    for start in range(first, last + 1, IDS_AT_ONCE):
        await statement.fetch(start, start + IDS_AT_ONCE)
        await asyncio.sleep(PAUSE_S)

"""Counts of verdicts: equal to the rows after ingest, retention and migration."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from alembic import command
from sqlalchemy import create_engine, func, select

from cloud.store import Store, open_store
from cloud.store.fleet_queries import device_rows, fleet_summary
from cloud.store.migrate import alembic_configuration, migrate
from cloud.store.retention import remove_old
from cloud.store.schema import KIND, sources, verdict_counts, verdicts
from cloud.store.sqlite.store import DATABASE_FILE
from shared.samples import Decision, Route
from tests.cloud.store.test_queries import fill
from tests.cloud.store.test_store import judge_all


async def check(store: Store) -> dict[tuple[str, ...], int]:
    """Return the counts by device and kind, after comparing them with the rows of `verdicts`."""
    kind = [verdicts.c[name] for name in KIND]
    kept = [verdict_counts.c[name] for name in KIND]
    async with store.reading() as connection:
        query = select(verdict_counts.c.device_id, *kept, verdict_counts.c.verdicts)
        counts = {
            tuple(row[:4]): row[4] for row in await connection.execute(query.where(verdict_counts.c.verdicts > 0))
        }
        of_devices = select(verdicts.c.device_id, *kind, func.count()).group_by(verdicts.c.device_id, *kind)
        found = {tuple(row[:4]): row[4] for row in await connection.execute(of_devices)}
        in_all = select(*kind, func.count()).group_by(*kind)
        found |= {("", *row[:3]): row[3] for row in await connection.execute(in_all)}
    assert counts == found
    return counts


async def test_counts_follow_new_verdicts_and_retention(store, add):
    await add("one", 3)
    await judge_all(store, judged_at_s=time.time() - 450 * 86_400)
    await add("one", 2)
    await add("two", 1)
    await judge_all(store, decision=Decision.NORMAL)
    await check(store)
    await remove_old(store, payloads_days=0, verdicts_days=365, events_days=0)
    counts = await check(store)
    assert sum(count for (device_id, *_), count in counts.items() if device_id) == 3
    async with store.reading() as connection:
        assert (await fleet_summary(connection, alive_since_s=0.0)).decisions == {Decision.NORMAL: 3}
        assert [row.decisions for row in await device_rows(connection)] == [
            {Decision.NORMAL: 2},
            {Decision.NORMAL: 1},
        ]


async def test_a_store_of_an_earlier_version_is_counted(tmp_path: Path) -> None:
    configuration = alembic_configuration()
    with create_engine(f"sqlite:///{tmp_path / DATABASE_FILE}").begin() as connection:
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, "head")
    async with open_store(tmp_path) as store:
        await fill(store)
        expected = await check(store)
    with create_engine(f"sqlite:///{tmp_path / DATABASE_FILE}").begin() as connection:
        configuration.attributes["connection"] = connection
        command.downgrade(configuration, "0004")
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as old:
        assert "route" not in {row[1] for row in old.execute("PRAGMA table_info(verdicts)")}
    migrate(tmp_path)
    async with open_store(tmp_path) as store:
        assert await check(store) == expected
        async with store.reading() as connection:
            routes = set((await connection.execute(select(verdicts.c.route))).scalars())
            listed = (await connection.execute(select(sources.c.source_key, sources.c.device_id))).all()
    assert routes == {Route.AUDIT.value, Route.FORWARD.value}
    assert len(listed) == 6

"""Two connections that change the journal of a new file at once."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from cloud.store.sqlite.store import _engine

FILES = 40  # without a retry, about one in 40 failed


async def test_connections_that_open_a_new_file_together_wait_for_each_other(tmp_path: Path) -> None:
    for number in range(FILES):
        path = tmp_path / f"{number}.sqlite"
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE samples (number)")
        engines = [_engine(path, {}, pool_size=1, begin=begin) for begin in ("BEGIN", "BEGIN IMMEDIATE")]
        await asyncio.gather(*(_use(engine) for engine in engines))
        for engine in engines:
            await engine.dispose()


async def _use(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        assert (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one() == "wal"

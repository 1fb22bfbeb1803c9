"""Readers of a small pool: bounded in number, in waiting and in time."""

import asyncio
import time

import pytest

from cloud.store import Store, open_store
from cloud.store.read_queue import ReadLimits
from shared.errors import StoreBusyError

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
async def busy(location):
    """A store with two readers, two waiting ones and a deadline of half a second."""
    async with open_store(location, ReadLimits(connections=2, waiting=2, deadline_s=0.5)) as store:
        yield store


async def read(store: Store, query: str = "SELECT 1") -> int:
    async with store.reading() as connection:
        return (await connection.exec_driver_sql(query)).scalar_one()


async def test_a_query_beyond_its_deadline_is_interrupted_and_the_connection_serves_on(busy):
    started_s = time.monotonic()
    found = await asyncio.gather(*(read(busy, ENDLESS) for _ in range(2)), return_exceptions=True)
    assert {type(error) for error in found} == {StoreBusyError}
    assert time.monotonic() - started_s < 5
    assert await asyncio.gather(*(read(busy) for _ in range(4))) == [1] * 4


async def test_a_reader_beyond_the_queue_is_refused_at_once_and_one_in_it_after_its_deadline(busy):
    holding = [asyncio.create_task(read(busy, ENDLESS)) for _ in range(2)]
    await asyncio.sleep(0.1)
    waiting = [asyncio.create_task(read(busy)) for _ in range(2)]
    await asyncio.sleep(0)
    started_s = time.monotonic()
    with pytest.raises(StoreBusyError, match="try again"):
        await read(busy)
    assert time.monotonic() - started_s < 0.1
    found = await asyncio.gather(*holding, *waiting, return_exceptions=True)
    assert {type(error) for error in found[:2]} == {StoreBusyError}
    assert all(item == 1 or isinstance(item, StoreBusyError) for item in found[2:])
    assert await read(busy) == 1


async def test_readers_that_are_cancelled_give_their_place_back(busy):
    tasks = [asyncio.create_task(read(busy, ENDLESS)) for _ in range(4)]
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await asyncio.gather(*(read(busy) for _ in range(3))) == [1] * 3


async def test_a_store_that_closes_interrupts_its_queries(location):
    store = open_store(location)
    task = asyncio.create_task(read(store, ENDLESS))
    await asyncio.sleep(0.1)
    store.stop_reading()
    with pytest.raises(StoreBusyError):
        await asyncio.wait_for(task, 5)
    await asyncio.wait_for(store.close(), 5)

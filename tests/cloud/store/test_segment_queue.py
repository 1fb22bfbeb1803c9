"""Requests whose payloads wait for their segment: each is written, also one that comes while the writer ends."""

import asyncio

import pytest

from cloud.store.segment_queue import SegmentQueue
from shared.errors import StorageError
from tests.cloud.store.backends import large_request, only_sqlite

KIB = 1024


@only_sqlite
async def test_a_request_that_comes_in_the_turn_in_which_the_writer_ends_is_written(store) -> None:
    queue, loop = SegmentQueue(store.segments), asyncio.get_running_loop()
    first, second = (large_request(20 * KIB)[0] for _ in range(2))
    later: asyncio.Future[asyncio.Future[object]] = loop.create_future()
    placing = queue.place(first)
    placing.add_done_callback(lambda _: later.set_result(queue.place(second)))  # one turn after the result was set
    await placing
    async with asyncio.timeout(5):
        placed = await (await later)
    assert placed.segment_id is not None


@only_sqlite
async def test_a_cancelled_request_neither_stops_nor_shifts_the_others(store) -> None:
    queue = SegmentQueue(store.segments)
    requests = [large_request(size * KIB)[0] for size in (20, 30, 40)]
    placing = [queue.place(request) for request in requests]
    placing[0].cancel()
    async with asyncio.timeout(5):
        placed = [await each for each in placing[1:]]
    for request, found in zip(requests[1:], placed, strict=True):
        (value,) = [each for each in request.outside if each]
        (place,) = [each for each in found.places if each]
        assert (await store.segments.read([place]))[place] == value.data


@only_sqlite
async def test_a_cancelled_request_keeps_a_failed_segment_from_no_other(store, monkeypatch) -> None:
    async def fail(values: object) -> None:
        raise StorageError("the disk is full")

    queue = SegmentQueue(store.segments)
    monkeypatch.setattr(store.segments, "write", fail)
    placing = [queue.place(large_request(20 * KIB)[0]) for _ in range(2)]
    placing[0].cancel()
    with pytest.raises(StorageError, match="the disk is full"):
        await asyncio.wait_for(placing[1], 5)
    monkeypatch.undo()
    await asyncio.wait_for(queue.place(large_request(20 * KIB)[0]), 5)

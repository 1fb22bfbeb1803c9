"""Requests in the inbox: counted, unpacked in turns, each sample one row, on each back end."""

import asyncio
import dataclasses
import time
import uuid

import pytest
from sqlalchemy import func, select, update

from cloud.service import doctor
from cloud.store import inbox as inbox_module
from cloud.store import open_store
from cloud.store.fleet_queries import fleet_summary
from cloud.store.inbox import unpack_next
from cloud.store.judging import backlog, waiting_samples
from cloud.store.queries import is_waiting
from cloud.store.removal import begin_removal, delete_data
from cloud.store.schema import inbox, samples
from shared.errors import StorageError
from tests.cloud.store.backends import only_postgresql
from tests.cloud.store.test_group_commit import request, sample
from vedette.v1 import detection_pb2


async def count(store, table) -> int:
    async with store.reading() as connection:
        return (await connection.execute(select(func.count()).select_from(table))).scalar_one()


async def numbers(store) -> list[int]:
    async with store.reading() as connection:
        return list((await connection.execute(select(inbox.c.number).order_by(inbox.c.number))).scalars())


async def put(store, device_id: str, *sizes: int) -> list[bytes]:
    """Put a request of each size into the inbox; the ids of all samples."""
    made = [request(*(sample() for _ in range(size)), device_id=device_id) for size in sizes]
    assert await store.append_requests(made) == [None] * len(sizes)
    return [sample_id for item in made for sample_id in item.sample_ids]


async def test_samples_in_the_inbox_are_counted_and_found(store, add):
    await add("one", 2)
    ids = await put(store, "two", 3, 1)
    counted = await backlog(store)
    assert counted.by_device == {"one": 2, "two": 4}
    assert counted.decoded_bytes["two"] == 4 * 2 * 4
    async with store.reading() as connection:
        summary = await fleet_summary(connection, alive_since_s=0.0)
        assert summary.pending == 6
        assert summary.oldest_pending_at_s < time.time()
        assert await is_waiting(connection, as_id(ids[2]))
        assert not await is_waiting(connection, as_id(ids[2][::-1]))


async def test_of_a_long_inbox_only_the_newest_requests_are_searched_for_a_sample(store, monkeypatch):
    ids = [await put(store, "one", 2) for _ in range(4)]
    single = await put(store, "one", *[1] * 4)

    async def waits(sample_id: bytes) -> bool:
        async with store.reading() as connection:
            return await is_waiting(connection, as_id(sample_id))

    unknown = ids[0][1][::-1]
    assert not await waits(unknown)
    with monkeypatch.context() as few:
        few.setattr(inbox_module, "MAX_SEARCHED_REQUESTS", 8)
        assert [await waits(sample_id) for sample_id in (ids[0][0], ids[0][1], ids[3][1], single[0])] == [True] * 4
        assert not await waits(unknown)
        few.setattr(inbox_module, "MAX_SEARCHED_REQUESTS", 7)
        assert await waits(unknown)  # it may be in the oldest
    monkeypatch.setattr(inbox_module, "MAX_SEARCHED_BYTES", 10)
    assert await waits(unknown)
    while await numbers(store):
        await unpack_next(store, 100)
    assert not await waits(unknown)


def as_id(sample_id: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=sample_id)


async def test_every_device_is_unpacked_as_far_as_its_share_of_the_next_batch(store):
    many = await put(store, "one", *[2] * 20)
    few = await put(store, "two", 1)
    assert await unpack_next(store, 8) == []
    assert [item.sample_id.bytes for item in await waiting_samples(store, 100)] == [many[0], few[0], *many[1:4]]
    assert await unpack_next(store, 4) == []  # enough wait
    assert await count(store, samples) == 5
    assert await unpack_next(store, 7) == []
    assert await count(store, samples) == 9  # the share of the only device in the inbox, in complete requests
    while await numbers(store):
        await unpack_next(store, 100)
    assert [item.sample_id.bytes for item in await waiting_samples(store, 100) if item.device_id == "one"] == many


async def test_a_transaction_unpacks_a_bounded_number_of_samples(store, monkeypatch):
    monkeypatch.setattr(inbox_module, "MAX_UNPACKED_SAMPLES", 5)
    await put(store, "one", 4, 4, 9)
    for left in (2, 1, 0):
        await unpack_next(store, 100)
        assert len(await numbers(store)) == left


async def test_a_sample_that_was_sent_twice_becomes_one_row_and_is_reported(store):
    twice, foreign, new = sample(), sample(), sample()
    await store.append_requests([request(sample(), twice), request(foreign, device_id="two")])
    again = [request(sample(), twice, foreign), request(new, new)]
    assert await store.append_requests(again) == [None, None]
    (first, second) = await store.unpack(await numbers(store))
    assert (first.device_id, first.samples, first.foreign, first.decoded_bytes) == ("one", 2, 1, 16)
    assert (second.samples, second.foreign) == (1, 0)
    assert (await count(store, samples), await count(store, inbox)) == (5, 0)


def of_unknown_modality(data: bytes) -> bytes:
    message = detection_pb2.SubmitRequest.FromString(data)
    message.samples[0].modality = 99
    return message.SerializeToString()


@pytest.mark.parametrize("damage", [lambda data: data[:-3], of_unknown_modality])
async def test_a_damaged_request_does_not_hold_up_the_others(store, damage):
    whole = request(sample())
    broken = dataclasses.replace(whole, data=damage(whole.data))
    assert broken.data != whole.data
    await store.append_requests([broken, request(sample(), sample())])
    (left,) = await unpack_next(store, 10)
    assert (left.samples, left.decoded_bytes, left.foreign) == (1, whole.decoded_bytes, 0)
    assert (await count(store, samples), await count(store, inbox)) == (2, 0)


async def test_nothing_of_a_failed_transaction_is_in_the_inbox(store):
    with pytest.raises(StorageError):
        await store.append_requests([request(sample()), request(sample(), device_id="never-enrolled")])
    assert await count(store, inbox) == 0


async def test_a_group_of_more_requests_than_one_statement_takes_is_stored_whole(store):
    known = sample()
    await store.append_requests([request(known)])
    outcomes = await store.append_requests([request(known), *(request(sample()) for _ in range(300)), request(known)])
    assert [place for place, owners in enumerate(outcomes) if owners is not None] == [0, 301]
    assert await count(store, inbox) == 301


@only_postgresql
async def test_two_processes_unpack_without_waiting_for_each_other(store, location):
    await put(store, "one", 2, 2)
    first, second = await numbers(store)
    async with open_store(location) as other:
        async with store.appending() as connection:
            await connection.execute(select(inbox.c.data).where(inbox.c.number == first).with_for_update())
            assert await asyncio.wait_for(other.unpack([first, second]), 5) == []
            assert await count(other, samples) == 2
        assert await asyncio.gather(store.unpack([first]), other.unpack([first, second])) == [[], []]
    assert (await count(store, samples), await count(store, inbox)) == (4, 0)


@pytest.mark.parametrize("keep_verdicts", [False, True])
async def test_the_data_of_a_removed_device_includes_its_requests(store, keep_verdicts):
    await put(store, "one", 2)
    await put(store, "two", 1)
    removal = await begin_removal(store, "one", keep_verdicts=keep_verdicts)
    assert not await delete_data(store, removal, service_runs=True)  # the analysis unpacks and judges them
    assert await count(store, inbox) == 2
    assert await delete_data(store, removal, service_runs=False) is not keep_verdicts
    assert await count(store, inbox) == (2 if keep_verdicts else 1)


async def test_the_doctor_warns_of_requests_that_nobody_unpacks(store):
    async def found() -> tuple[str, str]:
        async with store.reading() as connection:
            check = await doctor._inbox(connection)
        return check.state, check.detail

    assert (await found())[0] == doctor.OK
    await put(store, "one", 2, 3)
    assert (await found())[0] == doctor.OK
    async with store.writing() as connection:
        await connection.execute(update(inbox).values(received_at_s=time.time() - 3600))
    state, detail = await found()
    assert state == doctor.WARNING
    assert detail.startswith("5 samples wait to be unpacked, the first for 36")

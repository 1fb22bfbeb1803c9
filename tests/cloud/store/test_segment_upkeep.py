"""Upkeep of segments: what holds nothing goes, small ones are merged, removed devices leave no byte."""

import asyncio
import errno
import os
import sqlite3
import time
import uuid
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import select, update

from cloud.notice_kinds import NoticeKind
from cloud.notice_settings import NoticeSettings
from cloud.service.notices.conditions import present
from cloud.store import segment_upkeep
from cloud.store.contents import load_payloads, stored_map, stored_payload
from cloud.store.group_commit import GroupCommit
from cloud.store.inbox import unpack_next
from cloud.store.judging import store_verdicts, waiting_samples
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.removal import begin_removal, delete_data
from cloud.store.retention import remove_old
from cloud.store.schema import anomaly_maps, payloads, verdicts
from cloud.store.segment_holds import HOLD_S, SegmentHold
from cloud.store.segment_upkeep import clean_dirty, tend_segments
from cloud.store.segments import segment_of
from shared.samples import Decision, Verdict
from tests.cloud.store.backends import large_request, only_sqlite, segment_location, segment_names

KIB = 1024
DAY_S = 86_400.0


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path):
    return segment_location(request, tmp_path)


async def add(store, *sizes: int, device_id: str = "one", cells: int = 0) -> dict[bytes, bytes]:
    """Store a request in a segment of its own, and judge its samples; their payloads by id."""
    made, data = large_request(*sizes, device_id=device_id)
    assert await GroupCommit(store).store(made) == {}
    await judge(store, cells)
    return data


async def judge(store, cells: int = 0) -> None:
    await unpack_next(store, 1000)
    made = []
    for waiting in await waiting_samples(store, 1000):
        verdict = Verdict(sample_id=waiting.sample_id, decision=Decision.NORMAL, bundle_id="b", p_value=0.5)
        made.append((waiting, replace(verdict, anomaly_map=np.full((1, cells), 7, np.uint8) if cells else None)))
    await store_verdicts(store, made)


async def tend(store):
    return await tend_segments(store, everything=True, orphan_s=0)


async def found(store, data) -> dict[bytes, bytes]:
    """Payloads of these samples that are still there."""
    stored = {sample_id: await stored_payload(store, uuid.UUID(bytes=sample_id)) for sample_id in data}
    return {sample_id: item.message.data for sample_id, item in stored.items() if item is not None and not item.loss}


async def all_bytes(store) -> bytes:
    objects = await store.segments.objects()
    return b"".join([objects.read(name) for name in await segment_names(store)])


async def test_retention_of_payloads_removes_their_segments_and_keeps_labelled_ones(store):
    old, new = await add(store, *[20 * KIB] * 4), await add(store, 20 * KIB)
    kept, *gone = old
    await add_label(store, uuid.UUID(bytes=kept), NewLabel(Label.REAL, "anna"), "test")
    async with store.writing() as connection:
        first = select(payloads.c.number).order_by(payloads.c.number).limit(4).scalar_subquery()
        await connection.execute(
            update(verdicts).where(verdicts.c.number.in_(first)).values(judged_at_s=time.time() - 40 * DAY_S)
        )
    assert (await remove_old(store, payloads_days=30, verdicts_days=0, events_days=0))["payloads"] == 3
    await add(store, *[20 * KIB] * 60)  # large enough to stay
    assert (await tend(store)).removed == 0  # a label keeps the first, whose other bytes leave it
    async with store.writing() as connection:
        await connection.execute(payloads.delete().where(payloads.c.segment_id.is_not(None)))
    assert (await tend(store)).removed == 2
    assert await segment_names(store) == []
    assert await found(store, old | new) == {}
    assert gone


async def test_deletions_are_durable_before_their_segments_go(store, monkeypatch):
    for _ in range(3):
        await add(store, 20 * KIB)
    async with store.writing() as connection:
        await connection.execute(payloads.delete().where(payloads.c.segment_id.is_not(None)))
    steps = list[str]()
    objects = type(await store.segments.objects())
    make_durable, remove = store.make_durable, objects.remove

    async def noted_commit(connection) -> None:
        await make_durable(connection)
        steps.append("durable")

    def noted_removal(self, names) -> None:
        steps.append(f"{len(list(names))} gone")
        remove(self, names)

    monkeypatch.setattr(store, "make_durable", noted_commit)
    monkeypatch.setattr(objects, "remove", noted_removal)
    assert (await tend(store)).removed == 3
    assert steps[-2:] == ["durable", "3 gone"]
    assert steps.count("durable") == steps.count("3 gone")
    assert await segment_names(store) == []


async def test_small_segments_are_merged_and_every_value_is_found_at_its_new_place(store):
    data = {}
    for size in range(segment_upkeep.LEAST_MERGED):
        data |= await add(store, (16 + size) * KIB, cells=20 * KIB)
    waiting, more = large_request(20 * KIB)
    assert await GroupCommit(store).store(waiting) == {}  # in the inbox: its segment stays as it is
    before = await segment_names(store)
    assert len(before) == 2 * segment_upkeep.LEAST_MERGED + 1
    assert (await tend_segments(store, everything=True)).rewritten == 0  # too young
    assert (await tend(store)).rewritten == 2 * segment_upkeep.LEAST_MERGED
    after = await segment_names(store)
    assert len(after) == 2
    assert await found(store, data) == data
    for sample_id in data:
        assert (await stored_map(store, uuid.UUID(bytes=sample_id))).cells == bytes([7]) * 20 * KIB
    assert (await tend(store)).rewritten == 0  # few are left
    await judge(store)
    assert await found(store, more) == more


async def test_a_large_segment_with_little_left_is_rewritten(store):
    data = await add(store, *[200 * KIB] * 8)
    kept = dict(list(data.items())[:2])
    async with store.writing() as connection:
        first = select(payloads.c.number).order_by(payloads.c.number).limit(2).scalar_subquery()
        await connection.execute(payloads.delete().where(payloads.c.number.not_in(first)))
    assert (await tend(store)).rewritten == 1
    assert len(await all_bytes(store)) == 400 * KIB
    assert await found(store, data) == kept


async def test_bytes_without_rows_leave_a_segment_in_the_run_over_everything(store):
    """As of a device whose payloads had expired before it was removed."""
    data = await add(store, *[200 * KIB] * 8)
    gone, *kept = data
    async with store.writing() as connection:
        first = select(payloads.c.number).order_by(payloads.c.number).limit(1).scalar_subquery()
        await connection.execute(payloads.delete().where(payloads.c.number == first))
    assert (await tend_segments(store, everything=False, orphan_s=0)).rewritten == 0  # most of it is left
    assert (await tend(store)).rewritten == 1
    assert data[gone] not in await all_bytes(store)
    assert await found(store, data) == {sample_id: data[sample_id] for sample_id in kept}
    assert (await tend(store)).rewritten == 0


async def test_a_reader_finds_a_value_whose_segment_is_rewritten_meanwhile(store, monkeypatch):
    data = {}
    for _ in range(segment_upkeep.LEAST_MERGED):
        data |= await add(store, 20 * KIB)
    read, runs = store.segments.read, []

    async def read_late(places):
        if not runs:
            runs.append(1)
            await tend(store)
        return await read(places)

    monkeypatch.setattr(store.segments, "read", read_late)
    async with store.reading() as connection:
        numbers = list((await connection.execute(select(payloads.c.number))).scalars())
    loaded = await load_payloads(store, numbers)
    assert sorted(message.data for message in loaded.values()) == sorted(data.values())


async def test_a_hold_keeps_every_segment_until_it_ends_or_expires(store, monkeypatch):
    await add(store, 20 * KIB)
    async with store.writing() as connection:
        await connection.execute(payloads.delete())
    objects = await store.segments.objects()
    hold = SegmentHold(objects)
    assert (await tend(store)).removed == 0
    hold.release()
    SegmentHold(objects)  # of a backup that was killed
    assert (await tend(store)).removed == 0
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + HOLD_S + 1)
    assert (await tend(store)).removed == 1
    assert objects.sizes("holds") == {}


@pytest.mark.parametrize("keep_verdicts", [False, True])
async def test_no_byte_of_a_removed_device_stays_in_a_segment(store, keep_verdicts):
    (one, own), (two, others) = large_request(20 * KIB, 30 * KIB), large_request(25 * KIB, device_id="two")
    commits = GroupCommit(store)
    assert await asyncio.gather(commits.store(one), commits.store(two)) == [{}, {}]
    await judge(store, cells=20 * KIB)
    assert len(await segment_names(store)) == 2  # of payloads, and of maps
    removal = await begin_removal(store, "one", keep_verdicts=keep_verdicts)
    assert not await delete_data(store, removal, service_runs=True)  # its segments are too young
    assert await delete_data(store, removal, service_runs=False)
    left = await all_bytes(store)
    assert [data in left for data in (*own.values(), *others.values())] == [False, False, True]
    assert await found(store, others) == others
    async with store.reading() as connection:
        maps = list((await connection.execute(select(anomaly_maps.c.segment_bytes))).scalars())
    assert maps == ([20 * KIB] * 3 if keep_verdicts else [20 * KIB])
    assert left.count(bytes([7]) * 20 * KIB) == len(maps)


async def test_requests_of_a_removed_device_that_wait_leave_no_byte(store):
    (one, own), (two, others) = large_request(20 * KIB), large_request(25 * KIB, device_id="two")
    commits = GroupCommit(store)
    assert await asyncio.gather(commits.store(one), commits.store(two)) == [{}, {}]
    removal = await begin_removal(store, "one", keep_verdicts=False)
    assert not await delete_data(store, removal, service_runs=False)  # a request of another waits in the segment
    await judge(store)
    assert await delete_data(store, removal, service_runs=False)
    left = await all_bytes(store)
    assert [data in left for data in (*own.values(), *others.values())] == [False, True]


async def test_a_lost_value_of_another_device_does_not_stop_a_removal(store):
    (one, _), (two, others) = large_request(20 * KIB), large_request(25 * KIB, device_id="two")
    commits = GroupCommit(store)
    await asyncio.gather(commits.store(one), commits.store(two))
    await judge(store)
    objects = await store.segments.objects()
    objects.remove(await segment_names(store))
    assert await delete_data(store, await begin_removal(store, "one", keep_verdicts=False), service_runs=False)
    assert await found(store, others) == {}
    assert await clean_dirty(store, 0)


async def unreadable(store) -> list[str]:
    """Texts of the present problems with the payload store."""
    problems = await present(store, NoticeSettings(), store.path.parent, started_at_s=0.0, now_s=0.0)
    return [item.text for item in problems if item.kind is NoticeKind.PAYLOADS_UNREADABLE]


@only_sqlite
async def test_values_that_cannot_be_read_now_are_kept_and_the_removal_waits_for_them(store, monkeypatch):
    (one, own), (two, others) = large_request(20 * KIB), large_request(25 * KIB, 26 * KIB, device_id="two")
    commits = GroupCommit(store)
    await asyncio.gather(commits.store(one), commits.store(two))
    await judge(store)
    pread, (first, second) = os.pread, others

    def bad_sector(descriptor, size, start):
        if size == 26 * KIB:
            raise OSError(errno.EIO, "Input/output error")
        return pread(descriptor, size, start)

    removal = await begin_removal(store, "one", keep_verdicts=False)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", bad_sector)
        for _ in range(2):
            assert not await delete_data(store, removal, service_runs=False)
        assert await found(store, others) == {first: others[first]}
        payload = await stored_payload(store, uuid.UUID(bytes=second))
        assert (payload.is_gone, "cannot be read now" in payload.loss) == (False, True)
        assert list(store.segments.unreadable.values()) == [1]
        (text,) = await unreadable(store)
        assert text.startswith("1 payloads and maps in 1 segments of file://")
    assert await delete_data(store, removal, service_runs=False)
    assert await found(store, others) == others
    left = await all_bytes(store)
    assert not any(data in left for data in own.values())
    assert await unreadable(store) == []


@only_sqlite
async def test_an_upkeep_that_ends_between_two_transactions_loses_nothing(store, monkeypatch):
    data = {}
    for _ in range(segment_upkeep.LEAST_MERGED):
        data |= await add(store, 20 * KIB)
    monkeypatch.setattr(segment_upkeep, "FIRST_ROWS", 3)
    with closing(sqlite3.connect(store.path)) as blocked:
        # The second transaction fails, as if the process had ended: a row that it would change raises.
        is_last = "old.number = (SELECT max(number) FROM payloads)"
        blocked.execute(
            f"CREATE TRIGGER stop BEFORE UPDATE ON payloads WHEN {is_last} BEGIN SELECT RAISE(ABORT, 'x'); END"
        )
    with pytest.raises(Exception, match="x"):
        await tend(store)
    assert await found(store, data) == data
    with closing(sqlite3.connect(store.path)) as freed:
        freed.execute("DROP TRIGGER stop")
    await tend(store)
    assert await found(store, data) == data
    assert sum(segment_of(name) is not None for name in await segment_names(store)) < segment_upkeep.LEAST_MERGED


async def test_bytes_of_a_device_that_is_removed_during_a_rewrite_leave_the_new_segment(store, monkeypatch):
    own, others = {}, {}
    for _ in range(segment_upkeep.LEAST_MERGED):
        own |= await add(store, 20 * KIB)
        others |= await add(store, 20 * KIB, device_id="two")
    write = store.segments.write

    async def write_late(values):
        monkeypatch.setattr(store.segments, "write", write)
        removal = await begin_removal(store, "one", keep_verdicts=False)
        assert not await delete_data(store, removal, service_runs=True)  # the segments are too young
        return await write(values)

    monkeypatch.setattr(store.segments, "write", write_late)
    await tend(store)
    assert await clean_dirty(store, 0.0)
    left = await all_bytes(store)
    assert not any(data in left for data in own.values())
    assert await found(store, others) == others

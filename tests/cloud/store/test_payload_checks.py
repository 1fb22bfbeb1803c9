"""Checks of the payload store: it can be used, and each fault of a segment is found with its figure."""

import errno
import os
import random
import re
import time

import pytest
from sqlalchemy import insert

from cloud.service import payload_checks as payload_checks_module
from cloud.service.checks import FAILED, OK, WARNING, Check
from cloud.service.payload_checks import payload_checks
from cloud.store import segment_audit
from cloud.store.group_commit import GroupCommit
from cloud.store.inbox import unpack_next
from cloud.store.schema import dirty_segments
from cloud.store.segments import SegmentValue, segment_of
from cloud.words import bytes_words
from shared.errors import StorageError
from tests.cloud.store.backends import large_request, only_postgresql, only_sqlite, segment_location, segment_names

KIB = 1024


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path):
    return segment_location(request, tmp_path)


async def add(store, *sizes: int) -> str:
    """Store a request in a segment of its own; the name of its object."""
    before = await segment_names(store) if await store.segments.existing() is not None else []
    assert await GroupCommit(store).store(large_request(*sizes)[0]) == {}
    (name,) = set(await segment_names(store)).difference(before)
    return name


async def checked(store, deep: bool = True) -> list[Check]:
    return [check async for check in payload_checks(store, deep=deep)]


async def found(store, deep: bool = True) -> list[tuple[str, str]]:
    """State and detail of what is said about segments."""
    return [(check.state, check.detail) for check in await checked(store, deep) if check.name == "segments"]


@pytest.mark.parametrize("deep", [False, True])
async def test_a_store_without_faults_is_said_to_be_so_with_figures(store, deep):
    (check,) = await checked(store, deep)
    assert (check.state, check.detail) == (OK, f"{store.segments.url}: nothing was written there yet")
    await add(store, 20 * KIB, 30 * KIB)
    await unpack_next(store, 1000)
    await add(store, 40 * KIB)  # in the inbox
    before = await segment_names(store)
    probe, segments = await checked(store, deep)
    assert (probe.state, segments.state) == (OK, OK)
    assert re.search(r": the probe object doctor-[0-9a-f]{16} was written, read and removed in \d+ ms$", probe.detail)
    assert "2 segments of rows and 1 folders compared" in segments.detail
    assert ("--deep" in segments.detail) is not deep
    objects = await store.segments.objects()
    assert (await segment_names(store), "doctor" in str(objects.sizes(""))) == (before, False)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("damage", ["missing", "too short", "damaged"])
async def test_rows_without_their_bytes_are_found(store, damage, deep):
    await add(store, 20 * KIB)
    name = await add(store, 30 * KIB, 5 * KIB)
    await unpack_next(store, 1000)
    objects = await store.segments.objects()
    data = objects.read(name)
    objects.remove([name])
    if damage == "too short":
        objects.write(name, data[:-1])
    elif damage == "damaged":
        objects.write(name, bytes([data[0] ^ 1]) + data[1:-1] + bytes([data[-1] ^ 1]))
    ((state, detail),) = await found(store, deep)
    values = 1 if damage == "damaged" else 2  # one value of a segment is read
    assert detail.startswith(f"1 segments with {values} payloads or maps of rows are {damage}; the first is")
    assert (state, f"{objects.url}/{name}" in detail, "restore a backup" in detail) == (FAILED, True, True)


async def test_rows_of_the_inbox_without_their_bytes_are_found(store):
    name = await add(store, 30 * KIB, 5 * KIB)
    (await store.segments.objects()).remove([name])
    ((state, detail),) = await found(store)
    assert (state, detail[:38]) == (FAILED, "1 segments with 2 payloads or maps of ")


async def test_segments_without_a_row_are_found_when_they_are_old(store, monkeypatch):
    await add(store, 20 * KIB)
    (place,) = await store.segments.write([SegmentValue(bytes(2**20))])
    assert [state for state, _ in await found(store)] == [OK]
    monkeypatch.setattr(payload_checks_module, "ORPHAN_S", -1.0)
    ((state, detail),) = await found(store)
    assert (state, detail.startswith(f"1 segments with {bytes_words(2**20)} have no row")) == (WARNING, True), detail
    assert place.segment_id.hex() in detail


async def test_all_segments_are_compared_in_pages(store, monkeypatch):
    names = [await add(store, 20 * KIB) for _ in range(5)]
    await unpack_next(store, 1000)
    monkeypatch.setattr(segment_audit, "PAGE", 2)
    (await store.segments.objects()).remove(names[3:])
    ((_, detail),) = await found(store)
    assert detail.startswith("2 segments with 2 payloads")


@only_sqlite
async def test_a_sample_of_segments_is_compared_after_the_clock_went_back(store, monkeypatch):
    names = [await add(store, 20 * KIB) for _ in range(2)]
    await unpack_next(store, 1000)
    day_before_s = time.time() - 86_400
    monkeypatch.setattr(time, "time", lambda: day_before_s)
    audit = await segment_audit.audit_segments(store, everything=False, chance=random.Random(0))
    assert (audit.segments, audit.missing.segments) == (len(names), 0)


@only_sqlite
async def test_values_that_cannot_be_read_now_are_told_from_those_that_are_gone(store, monkeypatch):
    name = await add(store, 20 * KIB, 21 * KIB)
    await unpack_next(store, 1000)
    async with store.writing() as connection:
        await connection.execute(insert(dirty_segments).values(segment_id=segment_of(name)))
    ((state, detail),) = await found(store)
    assert (state, "1 wait to be rewritten without removed devices" in detail) == (OK, True)

    def bad_sector(descriptor, size, start):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", bad_sector)
    ((state, detail),) = await found(store)
    assert state == FAILED
    assert detail.startswith("2 payloads or maps in 1 segments cannot be read now; the first is file://")
    assert "check the disk" in detail


@only_sqlite
async def test_a_folder_that_is_not_mounted_is_told_from_a_new_one(store):
    await add(store, 20 * KIB)
    folder = store.path.parent / "payloads"
    folder.rename(folder.with_name("elsewhere"))
    (check,) = await checked(store)
    assert (check.state, "mount the disk" in check.detail) == (FAILED, True)


@only_sqlite
async def test_a_folder_that_cannot_be_written_is_an_error(store, monkeypatch):
    await add(store, 20 * KIB)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        await checked(store)


@only_postgresql
async def test_payloads_in_the_database_need_no_check(store):
    store.segments.url = ""
    assert [(check.state, check.detail) for check in await checked(store)] == [
        (OK, "payloads and maps are in the database")
    ]

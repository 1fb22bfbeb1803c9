"""Guarantees of the port: the same tests for each back end."""

import asyncio
import time

import pytest
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from cloud.store import open_store
from cloud.store.engine import MAX_TOLD_BYTES
from cloud.store.events import BundleChange, add_bundle_change, events_after, newest_cursor
from cloud.store.metadata import metadata
from cloud.store.schema import audit_log, devices, labels, samples, tokens
from shared.errors import StorageError
from tests.cloud.store.backends import only_postgresql


def token(secret: str) -> dict[str, object]:
    return {"secret_sha256": secret, "device_id": "one", "created_at_s": 0.0, "expires_at_s": 1.0}


async def count(store, table=tokens) -> int:
    async with store.reading() as connection:
        return (await connection.execute(select(func.count()).select_from(table))).scalar_one()


async def test_a_reader_cannot_change_anything(store):
    with pytest.raises((DBAPIError, StorageError)):
        async with store.reading() as connection:
            await connection.execute(update(devices).values(site="changed"))
    async with store.reading() as connection:
        assert set((await connection.execute(select(devices.c.site))).scalars()) == {"default"}


async def test_writers_of_two_processes_run_one_after_the_other_and_see_each_others_changes(store, location):
    async with open_store(location) as other:

        async def raise_version(target, times: int) -> None:
            for _ in range(times):
                async with target.writing() as connection:
                    (seen,) = (await connection.execute(select(devices.c.enrolled_at_s).limit(1))).scalars()
                    await asyncio.sleep(0.001)  # the other one would read the same number here
                    await connection.execute(update(devices).values(enrolled_at_s=seen + 1))

        await asyncio.gather(*(raise_version(target, 5) for target in (store, other, store, other)))
    async with store.reading() as connection:
        assert set((await connection.execute(select(devices.c.enrolled_at_s))).scalars()) == {20.0}


async def test_a_cursor_over_the_events_skips_none_that_commits_late(store, location):
    """A reader that follows the newest cursor sees each event, though writers of two processes take turns."""
    found: list[str] = []

    async def follow(target) -> None:
        cursor = 0
        while len(found) < 40:
            for event in await events_after(target, "one", cursor, 100):
                found.append(event.content.bundle_id)
                cursor = event.cursor
            await asyncio.sleep(0)

    async def write(target, name: str) -> None:
        for index in range(20):
            async with target.writing() as connection:
                await add_bundle_change(connection, BundleChange("biopsy", f"{name}{index}"), time.time(), ["one"])
                await asyncio.sleep(0.001)

    async with open_store(location) as other, asyncio.timeout(30):
        await asyncio.gather(follow(store), write(store, "a"), write(other, "b"))
    assert sorted(found) == sorted(f"{name}{index}" for name in "ab" for index in range(20))
    assert await newest_cursor(store) >= 40


async def test_the_version_changes_with_each_commit_of_any_process(store, location):
    async with open_store(location) as other:

        async def settled() -> int:
            while (version := store.version()) != store.version():
                await asyncio.sleep(0.02)
            return version

        async with asyncio.timeout(10):
            version = await settled()
            contexts = (other.writing, other.appending, store.writing, store.appending)
            for number, context in enumerate(contexts):
                async with context() as connection:
                    await connection.execute(insert(tokens).values(token(f"{number}")))
                while store.version() == version:
                    await asyncio.sleep(0.02)
                version = await settled()


async def test_appending_is_whole_and_rejects_a_key_that_exists(store):
    async def append(*secrets: str) -> None:
        async with store.appending() as connection:
            for secret in secrets:
                await connection.execute(insert(tokens).values(token(secret)))

    await append("a")
    with pytest.raises(StorageError):
        await append("b", "a")
    assert await count(store) == 1


async def test_labels_and_audit_log_take_rows_and_no_change(store, add):
    await add()
    async with store.writing() as connection:
        number = (await connection.execute(select(samples.c.number))).scalar_one()
        label = {"label": "real", "author": "a", "note": "", "at_s": 0.0, "actor": "a"}
        await connection.execute(insert(labels).values(sample_number=number, **label))
        entry = {"at_s": 0.0, "actor": "a", "action": "b", "subject": "c", "details": {}}
        await connection.execute(insert(audit_log).values(entry))
    for statement in (update(labels).values(note="x"), update(audit_log).values(actor="x"), delete(audit_log)):
        with pytest.raises(StorageError, match="append-only"):
            async with store.writing() as connection:
                await connection.execute(statement)
    async with store.writing() as connection:
        await connection.execute(delete(samples))  # a label goes with its sample
    assert (await count(store, labels), await count(store, audit_log)) == (0, 1)


async def test_one_process_leads_until_it_ends(store, location):
    async with asyncio.timeout(20), store.leading() as lost:
        assert not lost.done()
    async with asyncio.timeout(20), open_store(location) as other, other.leading() as lost:
        assert not lost.done()


@only_postgresql
async def test_another_process_leads_only_after_the_first(store, location):
    async with open_store(location) as other:
        leads = asyncio.Event()

        async def lead() -> None:
            async with other.leading():
                leads.set()

        async with store.leading() as lost:
            task = asyncio.create_task(lead())
            await asyncio.sleep(0.3)
            assert not leads.is_set()
            assert not lost.done()
        await asyncio.wait_for(task, 10)
        assert leads.is_set()


@only_postgresql
async def test_a_commit_of_another_process_calls_back_within_a_second(store, location, add):
    called = asyncio.Event()
    async with open_store(location) as other:
        other.call_on_change(called.set)
        await asyncio.wait_for(called.wait(), 10)  # it listens now
        for commit in (lambda: add(count=1), lambda: add_change(store)):
            await asyncio.sleep(0.1)
            called.clear()
            await commit()
            await asyncio.wait_for(called.wait(), 1)


@only_postgresql
async def test_asking_for_the_version_calls_nobody_back(store, location):
    calls: list[int] = []
    listens = asyncio.Event()
    async with open_store(location) as other:
        other.call_on_change(listens.set)
        await asyncio.wait_for(listens.wait(), 10)
        other.call_on_change(lambda: calls.append(1))
        assert len({other.version() for _ in range(5)}) == 1
        assert calls == []
        await add_change(store)
        async with asyncio.timeout(10):
            while not calls:
                await asyncio.sleep(0.02)


async def add_change(store) -> None:
    async with store.writing() as connection:
        await add_bundle_change(connection, BundleChange("biopsy", "biopsy-2-00000000"), 0.0)


async def told(store, message: bytes, arrived: list[bytes]) -> None:
    """Tell a message until it has arrived: a listener may not be connected yet."""
    async with asyncio.timeout(30):
        while message not in arrived:
            await store.tell(message)
            await asyncio.sleep(0.05)


async def test_a_message_reaches_its_own_process_whole_and_leaves_no_row(store):
    arrived: list[bytes] = []
    store.call_on_message(arrived.append)
    await told(store, b"first", arrived)
    before = [await count(store, table) for table in metadata.sorted_tables]
    messages = [bytes([place]) * size for place, size in enumerate([1, 5000, MAX_TOLD_BYTES])]
    for message in (*messages, b""):
        await store.tell(message)
    async with asyncio.timeout(20):
        while arrived[-1] != b"":
            await asyncio.sleep(0.02)
    assert arrived[-4:-1] == messages  # in order
    assert [await count(store, table) for table in metadata.sorted_tables] == before


@only_postgresql
async def test_a_message_reaches_other_processes_also_after_a_lost_connection(store, location):
    arrived: list[bytes] = []
    async with open_store(location) as other:
        other.call_on_message(arrived.append)
        await told(store, b"first", arrived)
        async with store.writing() as connection:
            ended = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            assert (await connection.execute(ended)).scalars().all()
        await told(store, b"second", arrived)


async def test_a_message_beyond_the_limit_is_refused(store):
    with pytest.raises(StorageError, match="bytes"):
        await store.tell(bytes(MAX_TOLD_BYTES + 1))


@only_postgresql
async def test_notifications_of_other_programs_are_no_messages(store):
    arrived: list[bytes] = []
    store.call_on_message(arrived.append)
    await told(store, b"first", arrived)
    async with store.writing() as connection:
        for payload in ("", "x", "k 0 1 !", "k a b c", "k 1 1 YQ==", "half 0 2 YQ==", "00000000000000aa 0 1 !"):
            await connection.execute(select(func.pg_notify("vedette_messages", payload)))
    await store.tell(b"last")
    async with asyncio.timeout(20):
        while arrived[-1] != b"last":
            await asyncio.sleep(0.02)
    assert set(arrived) == {b"first", b"last"}

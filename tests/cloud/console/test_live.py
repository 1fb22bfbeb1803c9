"""Stream of changes: one tick for all pages, no query without a change, and a clock that a slow store does not stop."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event

from cloud.console import create_app, live, snapshots
from cloud.console.live import STORE, TOPICS, LiveFeed, LiveStream
from cloud.console.snapshots import Snapshots
from tests.cloud.console.filled_store import SHUTTLE, XSS, Fleet, open_store

PAGES = 20


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    monkeypatch.setattr(live, "TICK_S", 0.05)
    monkeypatch.setattr(live, "PATIENCE_S", 0.05)
    monkeypatch.setattr(snapshots, "FRESH_S", 0.04)
    store, registry = open_store(tmp_path)
    async with store:
        fleet = Fleet(store, registry)
        await fleet.enrol()
        yield fleet


@contextlib.asynccontextmanager
async def reading(feed: LiveFeed, pages: int = 1) -> AsyncIterator[list[list[bytes]]]:
    """Messages that open pages have received so far, one list for each page."""
    received: list[list[bytes]] = [[] for _ in range(pages)]

    async def read(into: list[bytes]) -> None:
        async with contextlib.aclosing(feed.messages(TOPICS)) as messages:
            async for message in messages:
                into.append(message)

    readers = [asyncio.create_task(read(into)) for into in received]
    yield received
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    await feed.close()


def events(messages: list[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    for text in b"".join(messages).decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in text.splitlines())
        if "event" in fields:
            yield fields["event"], json.loads(fields["data"])


async def told(received: list[list[bytes]], reached: Callable[[list[str]], bool]) -> None:
    """Wait until every page has received such problems with its clock."""
    async with asyncio.timeout(20):
        for messages in received:
            while not reached([data["problem"] for name, data in events(messages) if name == "clock"] or ["none"]):
                await asyncio.sleep(0.05)


def changes(messages: list[bytes], topic: str) -> list[int]:
    return [data["number"] for name, data in events(messages) if name == "changed" and data["topic"] == topic]


def count_statements(fleet: Fleet) -> list[str]:
    statements: list[str] = []
    engine = fleet.store._reader.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    return statements


async def test_pages_are_told_of_a_change_once_and_nothing_is_read_without_one(fleet: Fleet) -> None:
    feed = LiveFeed(Snapshots(fleet.store, 60.0), dict)
    async with reading(feed, PAGES) as received:
        await asyncio.sleep(0.3)
        assert {len(changes(messages, STORE)) for messages in received} == {1}
        statements = count_statements(fleet)
        await asyncio.sleep(0.5)
        assert statements == []
        assert len({id(messages[-1]) for messages in received}) == 1  # rendered once for all
        await fleet.send(SHUTTLE)
        await asyncio.sleep(0.5)
        told = {len(changes(messages, STORE)) for messages in received}
        assert told <= {2, 3, 4}  # request, sample and verdict may fall into three ticks
        clocks = [data["now_s"] for name, data in events(received[0]) if name == "clock"]
        assert clocks == sorted(clocks)
        assert len(clocks) > 5
    assert feed._task is not None
    assert feed._task.done()


async def test_the_list_changes_with_verdicts_and_problems_of_bundles_only(fleet: Fleet) -> None:
    problems: dict[str, str] = {}
    feed = LiveFeed(Snapshots(fleet.store, 60.0), lambda: problems)
    async with reading(feed) as (messages,):
        await asyncio.sleep(0.2)
        await fleet.heartbeat(SHUTTLE, 99)
        await asyncio.sleep(0.3)
        assert len(changes(messages, "verdicts")) == 1
        problems["press-1-0"] = "it is damaged"
        await asyncio.sleep(0.3)
        assert len(changes(messages, "verdicts")) == 2


async def test_a_failure_reaches_every_page_and_the_next_snapshot_ends_it(fleet: Fleet) -> None:
    feed = LiveFeed(Snapshots(fleet.store, 60.0), dict)
    async with reading(feed, 2) as received:
        await asyncio.sleep(0.2)
        async with fleet.store.writing() as connection:
            await connection.exec_driver_sql("ALTER TABLE heartbeats RENAME TO hidden")
        await told(received, lambda problems: problems[0] == "" and "vedette cloud migrate" in problems[-1])
        async with fleet.store.writing() as connection:
            await connection.exec_driver_sql("ALTER TABLE hidden RENAME TO heartbeats")
        await told(received, lambda problems: problems[-1] == "")


async def test_the_clock_goes_on_while_the_store_does_not_answer(fleet: Fleet) -> None:
    shared = Snapshots(fleet.store, 60.0)
    feed = LiveFeed(shared, dict)
    async with reading(feed) as (messages,):
        await asyncio.sleep(0.2)
        async with shared._lock:  # as while a query runs
            before = len(messages)
            async with asyncio.timeout(20):
                while len(messages) <= before + 2:
                    await asyncio.sleep(0.05)
        await fleet.send(SHUTTLE)
        async with asyncio.timeout(20):
            while len(changes(messages, STORE)) < 2:
                await asyncio.sleep(0.05)


async def test_a_stream_ends_when_the_browser_leaves_and_when_the_feed_does(fleet: Fleet) -> None:
    feed = LiveFeed(Snapshots(fleet.store, 60.0), dict)
    for ends_feed in (False, True):
        sent: list[dict[str, Any]] = []
        gone = asyncio.Event()

        async def receive(gone: asyncio.Event = gone) -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any, sent: list[dict[str, Any]] = sent) -> None:
            sent.append(message)

        stream = asyncio.create_task(LiveStream(feed, TOPICS)({"type": "http", "method": "GET"}, receive, send))
        await asyncio.sleep(0.15)
        assert sent[0]["status"] == 200
        assert (b"content-type", b"text/event-stream; charset=utf-8") in sent[0]["headers"]
        await feed.close() if ends_feed else gone.set()
        await asyncio.wait_for(stream, 2)
        assert feed._streams == 0
    assert sent[-1] == {"type": "http.response.body", "body": b""}


async def test_an_unknown_topic_is_refused_and_device_text_stays_text(fleet: Fleet) -> None:
    transport = httpx.ASGITransport(create_app(fleet.store, fleet.registry))
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
        answer = await client.get("/live", params={"topics": f"store,{XSS[:20]}"})
        assert answer.status_code == 422
        assert "known topics: figures, review, store, verdicts" in answer.json()["detail"]

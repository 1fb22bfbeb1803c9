"""Event streams: new events are pushed, and the store is read for those of other processes only."""

import asyncio
import time
from collections import Counter
from dataclasses import replace

import grpc
import numpy as np
import pytest

from cloud.service import event_messages, event_notifier, watch
from cloud.service.access import ClientCertificate
from cloud.service.event_messages import PushedEvent, pushed_events
from cloud.service.event_notifier import EventNotifier, EventStream
from cloud.store import open_store
from cloud.store.events import BundleChange, StoredEvent, WrittenEvent, add_bundle_change
from cloud.store.fleet import revoke
from cloud.store.registry import publish_to
from cloud.store.sqlite.store import DATABASE_FILE
from shared.samples import Decision, Verdict, new_sample_id
from tests.cloud.console.filled_store import empty_database
from tests.cloud.service.harness import message
from vedette.v1 import detection_pb2


@pytest.fixture
def reads(monkeypatch) -> Counter[str]:
    """How often the events of each device are read from the store."""
    counts: Counter[str] = Counter()
    events_after = watch.events_after

    async def counted(store, device_id, *arguments):
        counts[device_id] += 1
        return await events_after(store, device_id, *arguments)

    monkeypatch.setattr(watch, "events_after", counted)
    return counts


async def verdict_after(stream) -> detection_pb2.Event:
    return await asyncio.wait_for(anext(aiter(stream)), 10)


@pytest.fixture
def rare_polls(monkeypatch) -> None:
    monkeypatch.setattr(event_notifier, "POLL_S", 60.0)


async def test_verdicts_are_pushed_without_a_read_of_the_store_for_any_device(rare_polls, cloud, biopsies, reads):
    busy, quiet = await cloud.device("press-01"), await cloud.device("press-02")
    streams = [device.detection.Watch(detection_pb2.WatchRequest()) for device in (busy, quiet)]
    for stream in streams:
        assert (await verdict_after(stream)).WhichOneof("event") == "bundle_changed"
    cursors = []
    for values in biopsies.normal[:5]:
        sample = message(values, bundle_id=busy.bundle_id)
        await busy.submit([sample])
        event = await verdict_after(streams[0])
        assert event.verdict.sample_id == sample.sample_id
        if not cursors:  # before it the service knew nothing of the published bundle
            before = dict(reads)
        cursors.append(event.cursor)
    assert dict(reads) == before
    assert cursors == sorted(cursors)
    replayed = await busy.events(6)
    assert [event.cursor for event in replayed[1:]] == cursors
    assert replayed[-1].verdict == event.verdict  # the pushed verdict equals the stored one
    for stream in streams:
        stream.cancel()


async def test_events_of_another_process_arrive_between_pushed_ones(cloud, biopsies):
    device = await cloud.device("press-01")
    stream = device.detection.Watch(detection_pb2.WatchRequest())
    assert (await verdict_after(stream)).WhichOneof("event") == "bundle_changed"
    await publish_to(cloud.settings.data_dir, biopsies.version(2), biopsies.key.public_key())
    await device.submit([message(biopsies.normal[0], bundle_id=device.bundle_id)])
    kinds = [(event := await verdict_after(stream)).WhichOneof("event") for _ in range(2)]
    assert kinds == ["bundle_changed", "verdict"]
    assert event.cursor == 3
    stream.cancel()


async def test_a_stream_of_a_revoked_device_ends_though_nothing_happens(cloud):
    device, other = await cloud.device("press-01"), await cloud.device("press-02")
    ended, goes_on = (item.detection.Watch(detection_pb2.WatchRequest()) for item in (device, other))
    for stream in (ended, goes_on):
        await verdict_after(stream)
    async with open_store(cloud.settings.store) as store:
        await revoke(store, "press-01")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asyncio.wait_for(anext(aiter(ended)), 5)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert not goes_on.done()
    goes_on.cancel()


CERTIFICATE = ClientCertificate("press-01", "1", 0.0, 1.0)


def pushed(device_id: str, *cursors: int) -> list[PushedEvent]:
    return pushed_events([WrittenEvent(device_id, verdict_event(cursor)) for cursor in cursors])


async def add_bundle_changes(store, count: int) -> None:
    async with store.writing() as connection:
        for _ in range(count):
            await add_bundle_change(connection, BundleChange("biopsy", "biopsy-1"), 1.0)


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def verdict_event(cursor: int, cells: int = 0) -> StoredEvent:
    verdict = Verdict(new_sample_id(), Decision.NORMAL, judged_at_s=1.0)
    return StoredEvent(cursor, replace(verdict, anomaly_map=np.zeros((1, cells), np.uint8)) if cells else verdict)


def test_a_stream_drops_requests_for_live_views_that_are_too_old():
    stream = EventStream(CERTIFICATE, answers_live_views=True)
    now_s = time.monotonic()
    for place, until_s in enumerate((now_s - 1, now_s + 60)):
        stream.ask(detection_pb2.LiveViewRequested(request_id=bytes([place] * 16)), until_s)
    assert [request.request_id[0] for request in stream.take_asked()] == [1]
    assert stream.take_asked() == []


def test_a_slow_stream_holds_few_events_and_reads_the_rest_from_the_store():
    stream = EventStream(CERTIFICATE)
    stream.begin_reading()
    for cursor in range(1, 1 + event_notifier.MAX_PENDING):
        stream.push(cursor, b"event")
    assert not stream.must_read
    for cursor in range(event_notifier.MAX_PENDING, 10 * event_notifier.MAX_PENDING):
        stream.push(cursor, b"event")
    assert stream.must_read
    assert len(stream.take()) <= event_notifier.MAX_PENDING + 1
    stream.begin_reading()
    (large,) = pushed_events([WrittenEvent("press-01", verdict_event(1, event_messages.MAX_PUSHED_CELLS + 1))])
    stream.push(large.cursor, large.data)
    assert stream.must_read


def test_events_are_pushed_only_if_none_of_another_process_lies_before_them(tmp_path):
    notifier = EventNotifier(open_store(tmp_path), lambda error: None)
    with notifier.streaming(CERTIFICATE) as stream:
        stream.begin_reading()
        notifier.publish(pushed("press-01", 1) + pushed("press-02", 2))
        assert [cursor for cursor, _ in stream.take()] == [1]
        notifier.publish(pushed("press-01", 4))
        assert stream.take() == []
        assert notifier.newest == 2  # the store is read from here
        notifier.newest = 4  # it was read
        notifier.publish(pushed("press-01", 4, 5))  # of which one was read meanwhile
        assert [cursor for cursor, _ in stream.take()] == [5]


async def test_events_of_the_own_analysis_are_not_read_before_they_can_be_pushed(tmp_path):
    failures = []
    (tmp_path / DATABASE_FILE).write_bytes(empty_database())
    async with open_store(tmp_path) as store:
        notifier = EventNotifier(store, failures.append)
        with notifier.streaming(CERTIFICATE) as stream:
            await add_bundle_changes(store, 2)
            following = asyncio.create_task(notifier.run())
            await until(lambda: notifier.newest == 2)
            stream.begin_reading()
            await add_bundle_changes(store, 1)
            notifier.follow_soon()  # looks into the store while the event is on its way
            await asyncio.sleep(3 * event_notifier.FOLLOW_EVERY_S)
            own = pushed("press-01", 3)
            notifier.publish(own)
            assert stream.take() == [(3, own[0].data)]
            await add_bundle_changes(store, 1)  # as by a command: nothing pushes it
            await until(lambda: notifier.newest == 4)
            assert [cursor for cursor, _ in stream.take()] == [4]
            following.cancel()
    assert failures == []

"""Large payloads and maps in segments, in a folder and in S3: durable first, read by range, lost ones named."""

import asyncio
import contextlib
import resource
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from cloud.settings import StoreLocation
from cloud.store import objects as objects_module
from cloud.store import open_store
from cloud.store import segments as segments_module
from cloud.store.contents import load_payloads, stored_map, stored_payload
from cloud.store.events import events_after
from cloud.store.group_commit import GroupCommit
from cloud.store.inbox import unpack_next
from cloud.store.ingest import IngestStatus, inbox_request
from cloud.store.judging import store_verdicts, waiting_samples
from cloud.store.postgres.store import APPENDING_CONNECTIONS
from cloud.store.schema import anomaly_maps, inbox, payloads, samples
from cloud.store.segment_upkeep import tend_segments
from cloud.store.segments import SETTLED_S, LostValue, SegmentValue, segment_name, segment_of
from shared.errors import StorageError
from shared.samples import Decision, Verdict
from tests.cloud.store.backends import (
    large_request,
    only_postgresql,
    only_sqlite,
    segment_location,
    segment_names,
    with_payload,
)
from tests.cloud.store.test_group_commit import request, sample

KIB = 1024


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request, tmp_path):
    return segment_location(request, tmp_path)


async def numbers(store) -> dict[bytes, int]:
    await unpack_next(store, 1000)
    return {item.sample_id.bytes: item.number for item in await waiting_samples(store, 1000)}


async def loaded(store) -> dict[bytes, bytes | LostValue]:
    """Payload of each waiting sample, by id."""
    found = await numbers(store)
    messages = await load_payloads(store, list(found.values()))
    return {
        sample_id: message if isinstance(message := messages[number], LostValue) else message.data
        for sample_id, number in found.items()
    }


async def judge(store, cells: int = 0) -> None:
    """Judge all waiting samples; with `cells` each gets a map of that size."""
    await unpack_next(store, 1000)
    judged = []
    for place, waiting in enumerate(await waiting_samples(store, 1000)):
        anomaly_map = np.full((1, cells), place + 1, np.uint8) if cells else None
        verdict = Verdict(sample_id=waiting.sample_id, decision=Decision.NORMAL, bundle_id="b", p_value=0.5)
        judged.append((waiting, replace(verdict, anomaly_map=anomaly_map)))
    await store_verdicts(store, judged)


async def test_large_payloads_of_a_group_lie_in_one_segment_and_small_ones_in_the_database(store):
    commits = GroupCommit(store)
    made = [large_request(20 * KIB, 8, 5 * KIB), large_request(9 * KIB, 9 * KIB, device_id="two")]
    plain = sample()
    outcomes = await asyncio.gather(*(commits.store(item) for item, _ in made), commits.store(request(plain)))
    assert outcomes == [{}, {}, {}]
    assert len(await segment_names(store)) == 1
    async with store.reading() as connection:
        sizes = [len(data) for data in (await connection.execute(select(inbox.c.data))).scalars()]
    assert max(sizes) < KIB
    assert await loaded(store) == {plain.sample_id: plain.payload.data, **made[0][1], **made[1][1]}
    async with store.reading() as connection:
        stored = (
            await connection.execute(
                select(samples.c.payload_bytes, payloads.c.data, payloads.c.segment_id).join(
                    payloads, payloads.c.number == samples.c.number
                )
            )
        ).all()
    for size, data, segment_id in stored:
        assert (len(data), segment_id is None) == ((size, True) if size < 4 * KIB else (0, False))


async def test_samples_that_are_known_leave_each_other_payload_at_its_sample(store):
    first, data = large_request(20 * KIB, 21 * KIB)
    assert await GroupCommit(store).store(first) == {}
    again, new = large_request(22 * KIB)
    messages = [with_payload(20 * KIB), with_payload(23 * KIB)]
    messages[0].sample_id = first.sample_ids[0]
    mixed = inbox_request("one", time.time(), messages, takes_payloads=True)
    commits = GroupCommit(store)  # without the memory of the first one
    assert await asyncio.gather(commits.store(mixed), commits.store(again)) == [{0: IngestStatus.DUPLICATE}, {}]
    expected = data | new | {messages[1].sample_id: mixed.outside[1].data}
    assert await loaded(store) == expected


async def test_rows_with_data_of_an_older_version_are_read_beside_segments(store):
    old, new = with_payload(30 * KIB), large_request(30 * KIB)
    await store.append_requests([request(old)])
    assert await GroupCommit(store).store(new[0]) == {}
    assert await loaded(store) == {old.sample_id: old.payload.data, **new[1]}


async def test_large_maps_of_a_batch_lie_in_a_segment(store):
    requests = [request(sample(), sample(), sample())]
    await store.append_requests(requests)
    await judge(store, cells=8 * KIB)
    assert len(await segment_names(store)) == 1
    async with store.reading() as connection:
        assert set((await connection.execute(select(anomaly_maps.c.cells))).scalars()) == {b""}
    for place, sample_id in enumerate(requests[0].sample_ids, 1):
        found = await stored_map(store, uuid.UUID(bytes=sample_id))
        assert (found.height, found.width, found.cells) == (1, 8 * KIB, bytes([place]) * 8 * KIB)
    sent = await events_after(store, "one", 0, 10)
    assert [int(event.content.anomaly_map[0, -1]) for event in sent] == [1, 2, 3]


@pytest.mark.parametrize("damage", ["missing", "cut short", "damaged"])
async def test_a_segment_that_is_gone_or_damaged_loses_its_payloads_alone(store, damage):
    kept, lost = large_request(20 * KIB), large_request(20 * KIB, 5 * KIB)
    for made, _ in (kept, lost):
        assert await GroupCommit(store).store(made) == {}
    objects = await store.segments.objects()
    (name,) = [name for name in await segment_names(store) if objects.sizes(name.partition("/")[0])[name] == 25 * KIB]
    data = objects.read(name)
    objects.remove([name])
    if damage == "cut short":
        objects.write(name, data[: 10 * KIB])
    elif damage == "damaged":
        objects.write(name, bytes([data[0] ^ 1]) + data[1:-1] + bytes([data[-1] ^ 1]))
    found = await loaded(store)
    for sample_id, payload in kept[1].items():
        assert found[sample_id] == payload
    for sample_id in lost[1]:
        assert isinstance(found[sample_id], LostValue)
        assert damage in found[sample_id].reason
        assert damage in (await stored_payload(store, uuid.UUID(bytes=sample_id))).loss


@only_sqlite
async def test_a_disk_without_room_refuses_the_request_and_no_other(store):
    commits, (made, _) = GroupCommit(store), large_request(8 * KIB * KIB)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * KIB * KIB, hard))
    try:
        outcomes = await asyncio.gather(commits.store(made), commits.store(request(sample())), return_exceptions=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert isinstance(outcomes[0], StorageError)
    assert "free space" in str(outcomes[0])
    assert outcomes[1] == {}
    assert await segment_names(store) == []
    assert await commits.store(made) == {}  # as soon as there is room


@only_postgresql
async def test_an_unreachable_bucket_refuses_large_requests_and_holds_up_the_analysis(store, monkeypatch):
    monkeypatch.setattr(objects_module, "S3_ATTEMPTS", 0)
    made, data = large_request(20 * KIB)
    assert await GroupCommit(store).store(made) == {}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # discard: nothing listens
    location = StoreLocation(Path(), store.url, payloads_url=store.segments.url)
    async with open_store(location) as cut_off:
        commits = GroupCommit(cut_off)
        refused, small = await asyncio.gather(
            commits.store(large_request(20 * KIB)[0]), commits.store(request(sample())), return_exceptions=True
        )
        assert isinstance(refused, StorageError)
        assert "AWS_ENDPOINT_URL" in str(refused)
        assert small == {}
        waiting = await numbers(cut_off)
        with pytest.raises(StorageError):
            await load_payloads(cut_off, list(waiting.values()))
    (sample_id,) = data
    found = await load_payloads(store, [waiting[sample_id]])
    assert found[waiting[sample_id]].data == data[sample_id]


@only_sqlite
async def test_a_folder_that_is_not_mounted_loses_nothing(store):
    made, data = large_request(20 * KIB)
    assert await GroupCommit(store).store(made) == {}
    folder = store.path.parent / "payloads"
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(StorageError, match="Mount the disk"):
        await loaded(store)
    async with open_store(store.path.parent) as restarted:
        with pytest.raises(StorageError, match="Mount the disk"):
            await restarted.segments.write([SegmentValue(b"new")])
    folder.with_name("elsewhere").rename(folder)
    assert await loaded(store) == data


@only_sqlite
async def test_a_killed_process_leaves_a_segment_that_is_removed_later(store, tmp_path):
    made, data = large_request(20 * KIB)
    assert await GroupCommit(store).store(made) == {}
    script = (
        "import asyncio, os, signal, sys; from pathlib import Path; from cloud.store import open_store\n"
        "from cloud.store.segments import SegmentValue\n"
        "async def main():\n"
        "    async with open_store(Path(sys.argv[1])) as store:\n"
        "        await store.segments.write([SegmentValue(bytes(20000))])\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(await segment_names(store)) == 2
    assert (await tend_segments(store, everything=True)).removed == 0  # its transaction may yet come
    assert (await tend_segments(store, everything=True, orphan_s=0)).removed == 1
    assert await loaded(store) == data


async def test_a_request_that_waited_too_long_for_its_transaction_is_refused(store, monkeypatch):
    made, _ = large_request(20 * KIB)
    (place,) = await store.segments.write([made.outside[0]])
    old = place._replace(segment_id=int((time.time() - SETTLED_S) * 1000).to_bytes(6, "big") + bytes(10))
    with pytest.raises(StorageError, match="too slow"):
        await GroupCommit(store).store(made.placed(iter([old])))


async def test_a_request_whose_segment_settles_while_it_waits_for_the_store_is_refused(store, monkeypatch):
    made, _ = large_request(20 * KIB)
    placed = made.placed(iter(await store.segments.write([made.outside[0]])))
    async with contextlib.AsyncExitStack() as held:
        for _ in range(1 + APPENDING_CONNECTIONS if store.claimant else 1):
            await held.enter_async_context(store.appending())
        storing = asyncio.create_task(store.append_requests([placed]))
        await asyncio.sleep(0.05)
        assert not storing.done()
        monkeypatch.setattr(segments_module, "SETTLED_S", -1.0)
    with pytest.raises(StorageError, match="too slow"):
        await storing
    async with store.reading() as connection:
        assert (await connection.execute(select(inbox.c.number))).all() == []


def test_a_segment_is_found_by_the_name_of_its_object_and_by_no_other():
    segment_id = bytes.fromhex("0193766c0000" + "ab" * 10)
    assert segment_name(segment_id) == "2024-11-29T05/0193766c0000abababababababababab.segment"
    assert segment_of(segment_name(segment_id)) == segment_id
    for other in ("holds/ab", "2024-11-29T06/0193766c0000abababababababababab.segment", "a/b.segment", ".x.new"):
        assert segment_of(other) is None

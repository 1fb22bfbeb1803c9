"""Requests of many devices in one transaction, on each back end."""

import asyncio
import time

import numpy as np
import pytest

from cloud.store.contents import load_payloads
from cloud.store.group_commit import GroupCommit
from cloud.store.inbox import unpack_next
from cloud.store.inbox_request import InboxRequest
from cloud.store.ingest import IngestStatus, inbox_request
from cloud.store.judging import waiting_samples
from shared.errors import StorageError
from shared.modality import Modality
from shared.samples import Route, Sample, Screening, new_sample_id
from shared.wire import sample_to_message
from tests.cloud.stored_samples import count_stored
from vedette.v1 import sample_pb2

DUPLICATE, FOREIGN = IngestStatus.DUPLICATE, IngestStatus.FOREIGN


def sample(value: float = 1.0) -> sample_pb2.Sample:
    values = np.array([value, 2.0], np.float32)
    made = Sample(new_sample_id(), "lab", Modality.TABULAR, time.time(), "row 1", values)
    return sample_to_message(made, Screening(1.0, 0.01, False, Route.FORWARD, "biopsy-1-00000000", "cal", "int8"))


def request(*samples: sample_pb2.Sample, device_id: str = "one") -> InboxRequest:
    return inbox_request(device_id, time.time(), samples)


async def test_requests_that_wait_are_written_by_one_transaction(store):
    sizes = []
    append = store.append_requests

    async def counted(requests):
        sizes.append(len(requests))
        return await append(requests)

    store.append_requests = counted
    commits = GroupCommit(store)
    outcomes = await asyncio.gather(*(commits.store(request(sample(), sample())) for _ in range(20)))
    assert outcomes == [{}] * 20
    assert sizes == [20]  # all arrived before the task began to write


async def test_each_sample_keeps_its_own_payload_beside_duplicates(store):
    commits = GroupCommit(store)
    known, twice, new = sample(1.0), sample(2.0), [sample(10.0 + place) for place in range(130)]
    assert await commits.store(request(known)) == {}
    outcomes = await asyncio.gather(
        commits.store(request(known, twice, twice)), commits.store(request(known, *new, device_id="two"))
    )
    assert outcomes == [{0: DUPLICATE, 2: DUPLICATE}, {0: FOREIGN}]
    assert await unpack_next(store, 1000) == []
    waiting = {item.sample_id.bytes: item.number for item in await waiting_samples(store, 1000)}
    stored = [known, twice, *new]
    assert waiting.keys() == {item.sample_id for item in stored}
    payloads = await load_payloads(store, list(waiting.values()))
    assert [payloads[waiting[item.sample_id]].data for item in stored] == [item.payload.data for item in stored]


@pytest.mark.parametrize("is_unpacked", [False, True])
async def test_a_request_that_is_sent_again_is_known_after_a_restart(store, is_unpacked):
    first, second, new = sample(), sample(), sample()
    assert await GroupCommit(store).store(request(first, second)) == {}
    if is_unpacked:
        await unpack_next(store, 10)
    later = GroupCommit(store)
    assert await later.store(request(first, second)) == {0: DUPLICATE, 1: DUPLICATE}
    assert await later.store(request(first, second, new, device_id="two")) == {0: FOREIGN, 1: FOREIGN}
    assert await GroupCommit(store).store(request(second, new)) in ({}, {0: DUPLICATE, 1: FOREIGN})
    for _ in range(3):
        await unpack_next(store, 10)
    ids = sorted(item.sample_id for item in (first, second, new))
    assert sorted(item.sample_id.bytes for item in await waiting_samples(store, 10)) == ids


async def test_a_request_that_the_store_refuses_fails_alone(store):
    commits = GroupCommit(store)
    good, bad, later = sample(), sample(), sample()
    requests = [request(good), request(bad, device_id="never-enrolled"), request(later, device_id="two")]
    outcomes = await asyncio.gather(*map(commits.store, requests), return_exceptions=True)
    assert (outcomes[0], outcomes[2]) == ({}, {})
    assert isinstance(outcomes[1], StorageError)
    await unpack_next(store, 10)
    assert await count_stored(store, [item.sample_id for item in (good, bad, later)]) == 2


async def test_a_client_that_hangs_up_does_not_stop_the_transaction(store):
    commits = GroupCommit(store)
    kept, left = sample(), sample()
    waiting = asyncio.ensure_future(asyncio.shield(commits.store(request(left))))
    await asyncio.sleep(0)
    waiting.cancel()
    assert await commits.store(request(kept)) == {}
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await commits.store(request(left)) == {0: DUPLICATE}

"""Samples of many requests in one transaction, on each back end."""

import asyncio
import time

import numpy as np
import pytest

from cloud.store.group_commit import GroupCommit
from cloud.store.ingest import IngestStatus, Received
from cloud.store.judging import load_payloads, waiting_samples
from cloud.store.sample_rows import Row
from shared.errors import StorageError
from shared.modality import Modality
from shared.samples import Route, Sample, Screening, new_sample_id
from shared.wire import encode_payload
from tests.cloud.stored_samples import count_stored

STORED, DUPLICATE, FOREIGN = IngestStatus.STORED, IngestStatus.DUPLICATE, IngestStatus.FOREIGN


def row(device_id: str = "one", value: float = 1.0) -> Row:
    values = np.array([value, 2.0], np.float32)
    sample = Sample(new_sample_id(), "lab", Modality.TABULAR, time.time(), "row 1", values)
    screening = Screening(1.0, 0.01, False, Route.FORWARD, "biopsy-1-00000000", "cal", "int8")
    return Received(sample, screening, encode_payload(values, Modality.TABULAR)).row(device_id, time.time())


async def test_requests_that_wait_are_written_by_one_transaction(store):
    sizes = []
    append = store.append_samples

    async def counted(rows):
        sizes.append(len(rows))
        return await append(rows)

    store.append_samples = counted
    commits = GroupCommit(store)
    outcomes = await asyncio.gather(*(commits.store([row(), row()]) for _ in range(20)))
    assert outcomes == [[STORED, STORED]] * 20
    assert sizes == [40]  # all arrived before the task began to write


async def test_each_sample_keeps_its_own_payload_beside_duplicates(store):
    commits = GroupCommit(store)
    known, twice, new = row(value=1.0), row(value=2.0), [row("two", 10.0 + place) for place in range(130)]
    await commits.store([known])
    foreign = ((known[0][0], "two", *known[0][2:]), *known[1:])
    outcomes = await asyncio.gather(commits.store([known, twice, twice]), commits.store([foreign, *new, twice]))
    assert outcomes == [[DUPLICATE, STORED, DUPLICATE], [FOREIGN, *[STORED] * 130, DUPLICATE]]
    waiting = {item.sample_id.bytes: item.number for item in await waiting_samples(store, 1000)}
    stored = [known, twice, *new]
    assert waiting.keys() == {item[0][0] for item in stored}
    payloads = await load_payloads(store, list(waiting.values()))
    assert [payloads[waiting[item[0][0]]].data for item in stored] == [item[1][2] for item in stored]


async def test_a_request_that_the_store_refuses_fails_alone(store):
    commits = GroupCommit(store)
    good, bad, later = row(), row("never-enrolled"), row("two")
    outcomes = await asyncio.gather(*(commits.store([item]) for item in (good, bad, later)), return_exceptions=True)
    assert (outcomes[0], outcomes[2]) == ([STORED], [STORED])
    assert isinstance(outcomes[1], StorageError)
    assert await count_stored(store, [item[0][0] for item in (good, bad, later)]) == 2


async def test_a_client_that_hangs_up_does_not_stop_the_transaction(store):
    commits = GroupCommit(store)
    kept, left = row(), row()
    waiting = asyncio.ensure_future(asyncio.shield(commits.store([left])))
    await asyncio.sleep(0)
    waiting.cancel()
    assert await commits.store([kept]) == [STORED]
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await commits.store([left]) == [DUPLICATE]

"""Batches over bundles and devices, from the queue to stored verdicts."""

import asyncio
import contextlib
import threading
import time

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert

from cloud.serving import batcher as batcher_module
from cloud.serving.batcher import Batcher
from cloud.serving.batches import batches_of
from cloud.serving.cache import AnalysisCache, _Resident
from cloud.serving.verdicts import decode_batch, judge_batch
from cloud.serving.worker import Worker
from cloud.store import open_store
from cloud.store.ingest import Received, store_samples
from cloud.store.judging import WaitingSample, backlog, store_verdicts
from cloud.store.migrate import migrate
from cloud.store.schema import devices, verdicts
from cloud.store.verdict_rows import VERDICT_COLUMNS
from shared.bundle import Bundle
from shared.errors import BundleError, ConnectionFailedError, SampleRejected, StorageError
from shared.modality import Modality
from shared.samples import Decision, Route, Sample, Screening, Verdict, new_sample_id
from shared.wire import encode_payload


class Recorder:
    """Judge that records its batch sizes; it fails for a first value below 0 and gives no p-value for NaN."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def judge(self, values, crops=()):
        self.sizes.append(len(values))
        if any(item[0] < 0 for item in values):
            raise RuntimeError("cannot")
        return [self._one(item) for item in values]

    def _one(self, item):
        if item[0] == 7:
            return SampleRejected("seven")
        return Verdict(p_value=float(item[0]))


def waiting(number: int = 1, bundle_id: str = "a-1-0", payload_bytes: int = 10) -> WaitingSample:
    sample_id, now_s = new_sample_id(), time.time()
    return WaitingSample(
        number, sample_id, "one", "lab", Modality.TABULAR, bundle_id, now_s, payload_bytes, Route.FORWARD
    )


def payload(*values: float):
    return encode_payload(np.array(values, np.float32), Modality.TABULAR)


def judged(judge, payloads):
    batch = [(waiting(number), item) for number, item in enumerate(payloads)]
    return judge_batch(judge, decode_batch(batch), bundle_id="a-1-0", false_alarm_rate=0.01)


def test_batches_have_one_bundle_and_a_bounded_size():
    window = [waiting(number, f"bundle-{number % 2}") for number in range(10)]
    batches = batches_of(window, 3, {})
    assert [len(batch) for batch in batches] == [3, 3, 2, 2]
    assert all(len({item.edge_bundle_id for item in batch.samples}) == 1 for batch in batches)
    assert sorted(item.number for batch in batches for item in batch.samples) == list(range(10))
    assert [batch.is_full for batch in batches] == [True, True, False, False]
    large = [waiting(number, payload_bytes=40 * 2**20) for number in range(3)]
    assert [len(batch) for batch in batches_of(large, 64, {})] == [1, 1, 1]


@pytest.fixture
async def store(tmp_path):
    migrate(tmp_path)
    async with open_store(tmp_path) as store:
        async with store.writing() as connection:
            row = {"enrolled_at_s": 0.0, "certificate_serial": "1", "certificate_expires_at_s": 9e9}
            await connection.execute(insert(devices), [{"device_id": name, **row} for name in ("one", "two")])
        yield store


async def add(store, count: int, device_id: str = "one", *, bundle_id: str = "biopsy-1-0", value=None) -> None:
    received = [
        Received(
            Sample(new_sample_id(), "lab", Modality.TABULAR, 0.0, "", np.empty(0, np.float32)),
            Screening(1.0, 0.5, False, Route.FORWARD, bundle_id, "", ""),
            value or payload(0.5),
        )
        for _ in range(count)
    ]
    await store_samples(store, device_id, received, time.time())


@contextlib.asynccontextmanager
async def batching(store, judge, *, find_bundle=None, open_bundle=None, on_failure=lambda error: None):
    """Run a batcher; yield it and the list of judged samples."""
    workers = [Worker(name) for name in ("test", "decoding", "slow-test", "slow-decoding")]
    done: list = []

    async def same(bundle_id: str) -> str:
        return bundle_id

    async def open_nothing(bundle_id: str):
        raise AssertionError("not needed")

    cache = AnalysisCache(open_bundle or open_nothing, lambda bundle: judge, workers[2], 4, 2**30)
    cache._ready["biopsy-1-0"] = _Resident(Modality.TABULAR, judge, 0)
    batcher = Batcher(
        store,
        cache,
        (workers[0], workers[1]),
        (workers[2], workers[3]),
        find_bundle=find_bundle or same,
        batch_size=16,
        false_alarm_rate=0.01,
        on_judged=lambda judged, written, seconds: done.extend(judged),
        on_doubles=lambda _: None,
        on_failure=on_failure,
    )
    task = asyncio.create_task(batcher.run())
    try:
        yield batcher, done
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for worker in workers:
            worker.stop(1)


async def until(condition, timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_burst_is_judged_completely_in_full_batches(store):
    judge = Recorder()
    await add(store, 100)
    async with batching(store, judge) as (_, done):
        await until(lambda: len(done) == 100)
    assert judge.sizes[0] == 16
    assert (await backlog(store)).total == 0


async def test_quick_analyses_get_larger_batches_in_parts_of_the_batch_size(store):
    judge = Recorder()
    await add(store, 16 + 112)
    async with batching(store, judge) as (batcher, done):
        await until(lambda: len(done) == 128)
        assert max(judge.sizes) == 16
        assert batcher._sizes["biopsy-1-0"] > 16
    assert len(batches_of([waiting(number) for number in range(100)], 16, {"a-1-0": 128})) == 1


class Held(Recorder):
    """Judge whose calls wait until `turns` of them may end."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = threading.Semaphore(0)

    def judge(self, values, crops=()):
        answers = super().judge(values, crops)
        assert self.turns.acquire(timeout=20)
        return answers


async def test_while_a_batch_is_judged_one_is_read_ahead_and_the_one_before_is_stored(store):
    judge = Held()
    await add(store, 80)
    async with batching(store, judge) as (batcher, done):
        judge.turns.release()
        await until(lambda: len(judge.sizes) == 2 and len(done) == 16)  # the first is stored, the second judged
        await until(lambda: len(batcher._lane.numbers) == 32)  # and the third is read
        await asyncio.sleep(0.2)
        assert len(batcher._lane.numbers) == 32  # no further one
        judge.turns.release(10)
        await until(lambda: len(done) == 80)
        await until(lambda: not batcher._lane.numbers)
    assert (await backlog(store)).total == 0


async def test_samples_that_arrive_one_by_one_while_a_batch_is_judged_are_one_batch(store):
    judge = Held()
    await add(store, 1)
    async with batching(store, judge) as (batcher, done):
        await until(lambda: judge.sizes)
        for _ in range(5):
            await add(store, 1)
            batcher.wake()
            await asyncio.sleep(0.02)
        judge.turns.release(10)
        await until(lambda: len(done) == 6)
    assert judge.sizes == [1, 5]


async def test_verdicts_that_are_being_stored_at_the_end_are_not_lost(store, monkeypatch):
    begun, ends = asyncio.Event(), asyncio.Event()

    async def slow_store(*arguments):
        begun.set()
        await ends.wait()
        return await store_verdicts(*arguments)

    monkeypatch.setattr("cloud.serving.verdict_writer.store_verdicts", slow_store)
    await add(store, 5)
    async with batching(store, Recorder()):
        await asyncio.wait_for(begun.wait(), 30)
        asyncio.get_running_loop().call_later(0.1, ends.set)
    assert (await backlog(store)).total == 0


async def test_a_device_that_sends_little_does_not_wait_for_all_that_another_sent(store):
    class Slow(Recorder):
        def judge(self, values, crops=()):
            time.sleep(0.1)
            return super().judge(values, crops)

    await add(store, 128)
    async with batching(store, Slow()) as (batcher, done):
        await until(lambda: done)
        await add(store, 1, "two")
        batcher.wake()
        await until(lambda: any(waiting.device_id == "two" for waiting, _ in done))
        assert len(done) < 100
        await until(lambda: len(done) == 129)


async def test_small_samples_wait_for_neither_large_ones_nor_a_bundle_that_is_loaded(store, monkeypatch, biopsies):
    monkeypatch.setattr(batcher_module, "LARGE_SAMPLE_BYTES", 100)
    ends = threading.Event()

    class WaitsForLarge(Recorder):
        def judge(self, values, crops=()):
            if len(values[0]) > 1:
                ends.wait(10)
            return super().judge(values, crops)

    async def open_bundle(bundle_id: str):
        await asyncio.to_thread(ends.wait, 10)
        return biopsies.version(2)

    judge = WaitsForLarge()
    await add(store, 2, "two", bundle_id="new-2-0")
    await add(store, 2, "two", value=payload(*[0.5] * 50))
    async with batching(store, judge, open_bundle=open_bundle) as (batcher, done):
        await asyncio.sleep(0.1)
        for count in (1, 2):
            await add(store, 1)
            batcher.wake()
            await until(lambda count=count: len(done) == count)
        assert {waiting.device_id for waiting, _ in done} == {"one"}
        ends.set()
        await until(lambda: len(done) == 6)


async def test_the_batch_of_a_worker_that_crashed_is_resumed(store):
    class Ends(Recorder):
        def judge(self, values, crops=()):
            self.sizes.append(len(values))
            if len(self.sizes) == 1 or any(item[0] == 3 for item in values):
                raise SystemExit(3)
            return [self._one(item) for item in values]

    await add(store, 5)
    await add(store, 1, value=payload(3))
    async with batching(store, Ends()) as (_, done):
        await until(lambda: len(done) == 6)
    assert [verdict.decision.value for _, verdict in done] == ["normal"] * 5 + ["undecided"]


async def test_a_single_sample_is_judged_without_delay(store):
    async with batching(store, Recorder()) as (batcher, done):
        await asyncio.sleep(0.2)  # the batcher is idle now
        await add(store, 1)
        started_s = time.monotonic()
        batcher.wake()
        await until(lambda: done)
        assert time.monotonic() - started_s < 0.9  # earlier than the next poll


async def test_a_failing_store_is_retried(store):
    failures: list[Exception] = []

    async def find_bundle(bundle_id: str) -> str:
        if len(failures) < 2:
            raise StorageError("disk full")
        return bundle_id

    await add(store, 3)
    async with batching(store, Recorder(), find_bundle=find_bundle, on_failure=failures.append) as (_, done):
        await until(lambda: len(done) == 3)
    assert len(failures) == 2


async def test_a_sample_whose_verdict_the_store_never_takes_is_judged_once(store):
    await add(store, 3)
    values = (1, 0.0, "one", "lab", "tabular", "forward", "normal", 0.5, False, "b", "", [], [])
    async with store.writing() as connection:  # its number has a verdict already, as in a damaged store
        await connection.execute(insert(verdicts), [dict(zip(VERDICT_COLUMNS, values, strict=True))])
    judge = Recorder()
    async with batching(store, judge) as (batcher, done):
        await until(lambda: len(done) == 2)
        await until(lambda: batcher._lane.numbers == {1})
        await add(store, 1)
        batcher.wake()
        await until(lambda: len(done) == 3)
    assert judge.sizes == [3, 1]


async def test_samples_wait_until_the_store_provides_their_bundle(store, biopsies):
    failures: list[Exception] = []

    async def newest(bundle_id: str) -> str:
        return "biopsy-2-0"

    async def open_bundle(bundle_id: str):
        if not failures:
            raise StorageError("locked")
        return biopsies.version(2)

    await add(store, 3)
    judge = Recorder()
    async with batching(store, judge, find_bundle=newest, open_bundle=open_bundle, on_failure=failures.append) as (
        _,
        done,
    ):
        await until(lambda: len(done) == 3)
    assert len(failures) == 1
    assert all(verdict.decision is Decision.NORMAL for _, verdict in done)


async def test_samples_wait_while_no_replica_of_the_analysis_can_be_reached(store, biopsies):
    failures: list[Exception] = []

    class Away(Recorder):
        def judge(self, values, crops=()):
            if len(failures) < 2:
                raise ConnectionFailedError("away")
            return super().judge(values, crops)

    async def open_bundle(bundle_id: str):
        if len(failures) < 3:
            raise ConnectionFailedError("away")
        return biopsies.bundle

    await add(store, 5)
    await add(store, 5, bundle_id="other-1-0")  # its analysis is to be loaded
    judge = Away()
    async with batching(store, judge, open_bundle=open_bundle, on_failure=failures.append) as (_, done):
        await until(lambda: failures)
        assert (await backlog(store)).total == 10
        await until(lambda: len(done) == 10)
    assert [verdict.decision for _, verdict in done] == [Decision.NORMAL] * 10
    assert judge.sizes == [5, 5]


async def test_verdicts_wait_for_free_disk_space_without_another_analysis(store):
    judge = Recorder()
    failures: list[Exception] = []
    async with store.writing() as connection:
        await connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON verdicts BEGIN SELECT RAISE(FAIL, 'full'); END"
        )
    await add(store, 5)
    async with batching(store, judge, on_failure=failures.append) as (_, done):
        await until(lambda: failures)
        async with store.writing() as connection:
            await connection.exec_driver_sql("DROP TRIGGER full")
        await until(lambda: len(done) == 5)
    assert judge.sizes == [5]


@pytest.mark.parametrize("fault", ["damaged", "foreign", "missing", "folder", "analysis"])
async def test_verdicts_of_a_bundle_that_cannot_be_loaded_name_no_path_of_the_server(tmp_path, biopsies, caplog, fault):
    path = tmp_path / "bundles" / "a-1-0.vedette"
    path.parent.mkdir()
    data = biopsies.bundle.archive()
    if fault == "damaged":
        path.write_bytes(data[:-50])
    elif fault == "folder":
        path.mkdir()
    elif fault != "missing":
        path.write_bytes(data)
    trusted = Ed25519PrivateKey.generate() if fault == "foreign" else biopsies.key

    async def open_bundle(bundle_id: str):
        return Bundle.open(path, [trusted.public_key()])

    def load(bundle):
        raise RuntimeError(f"{path}: no memory")

    worker = Worker("test")
    cache = AnalysisCache(open_bundle, load, worker, 4, 2**30)
    texts = []
    for _ in range(2):  # the second answer is the remembered failure
        with pytest.raises(BundleError) as failed:
            await cache.get("a-1-0")
        texts.append(str(failed.value))
    worker.stop(1)
    assert texts[0] == texts[1]
    assert texts[0].startswith("bundle a-1-0 cannot be loaded: ")
    assert str(tmp_path) not in texts[0]
    assert path.name not in texts[0]
    assert ("publish it again" in texts[0]) == (fault != "analysis")
    (record,) = caplog.records  # the log of the service has the whole error, once
    assert str(path) in record.fields["error"]


def large_payload():
    """Payload that lies in a segment, if there are four of them."""
    return payload(*np.random.default_rng(4).uniform(0.3, 0.9, 2500))


async def test_samples_whose_segment_is_gone_are_undecided_with_the_reason(store, tmp_path):
    await add(store, 4, value=large_payload())
    await add(store, 2)
    (segment,) = (tmp_path / "payloads").rglob("*.segment")
    segment.unlink()
    async with batching(store, Recorder()) as (_, done):
        await until(lambda: len(done) == 6)
    reasons = sorted(verdict.reason for _, verdict in done)
    assert reasons == ["", "", *[f"not usable: its payload is gone: segment {segment.stem} is missing"] * 4]
    assert [verdict.decision.value for _, verdict in done].count("undecided") == 4


async def test_samples_wait_while_the_payload_store_cannot_be_reached(store, tmp_path):
    failures: list[Exception] = []
    await add(store, 4, value=large_payload())
    folder = tmp_path / "payloads"
    folder.rename(tmp_path / "not mounted")
    async with batching(store, Recorder(), on_failure=failures.append) as (_, done):
        await until(lambda: failures)
        assert not done
        (tmp_path / "not mounted").rename(folder)
        await until(lambda: len(done) == 4)
    assert {verdict.decision.value for _, verdict in done} == {"normal"}
    assert "Mount the disk" in str(failures[0])

"""Whatever the line and the service do, nothing that was spooled is lost or counted twice, and the order holds."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.bundles.cache import BundleCache
from edge.bundles.updater import Updater
from edge.counters import Counters
from edge.operation.inspection import ObservedStatus, status_lines
from edge.operation.latency import LatencyHistogram
from edge.settings import SpoolSettings, UplinkSettings
from edge.spool import Spool
from edge.spool_store import NewSample
from edge.uplink.delivery import Delivery
from edge.uplink.events import EventReader
from edge.uplink.link import LinkState
from edge.uplink.meter import LinkMeter
from edge.uplink.tasks import end
from edge.uplink.uplink import Uplink
from edge.uplink.verdicts import VerdictStore
from shared.samples import new_sample_id
from tests.edge.certificates import Authority, write_identity
from tests.edge.memory_cloud import BadTransport, MemoryCloud, MemoryTransport, failure
from vedette.v1 import detection_pb2, sample_pb2

SAMPLES = 200
QUICK = UplinkSettings(
    deadline_s=0.05, batch_samples=8, max_batch_age_ms=1, backoff_initial_s=0.002, backoff_max_s=0.02, heartbeat_s=0.02
)


def samples_of(p_values: Sequence[float]) -> list[NewSample]:
    made = []
    for p_value in p_values:
        sample_id = new_sample_id().bytes
        made.append(NewSample(sample_id, p_value, sample_pb2.Sample(sample_id=sample_id).SerializeToString()))
    return made


def wait_for(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("seed", range(4))
def test_over_a_bad_line_to_a_bad_service_everything_arrives_once(
    seed: int, tmp_path: Path, authority: Authority, signing_key: Ed25519PrivateKey
) -> None:
    write_identity(tmp_path, authority, "127.0.0.1:1", signing_key.public_key())
    counters, meter = Counters(), LinkMeter()
    spool, verdicts = Spool(tmp_path / "spool.db", SpoolSettings(), counters), VerdictStore(tmp_path / "verdicts.db")
    reader = EventReader(QUICK, verdicts, counters, LatencyHistogram(), lambda: None)
    updater = Updater("1", QUICK, BundleCache(tmp_path / "bundles", []), [], spool, counters, list, meter)
    lines: list[BadTransport] = []
    cloud = MemoryCloud()

    def connect(*_: object) -> BadTransport:
        lines.append(BadTransport(cloud, seed * 1000 + len(lines)))
        return lines[-1]

    delivery = Delivery(QUICK, spool, verdicts, meter)
    uplink = Uplink(tmp_path, QUICK, [updater, reader, delivery], connect)
    spool.listen(lambda: uplink.call_soon(delivery.wake))
    uplink.start()
    sent = samples_of([number % 97 / 97 for number in range(SAMPLES)])
    for start in range(0, SAMPLES, 20):
        spool.append(sent[start : start + 20], {})
    wait_for(lambda: spool.is_empty() and verdicts.awaited() == 0)
    uplink.stop()
    spool.close()
    assert set(cloud.samples) == {sample.sample_id for sample in sent}
    counts = counters.snapshot()
    assert counts["samples_acknowledged"] == counts["samples_spooled"] == counts["verdicts"] == SAMPLES
    assert counts["samples_refused"] == counts["samples_dropped"] == 0
    happened = set().union(*(line.happened for line in lines))
    assert len(happened) > 8  # or this shows nothing
    verdicts.close()


class NarrowTransport(MemoryTransport):
    """Transport that carries one request after the other at `bytes_per_s`.

    A request past its deadline is abandoned, and still takes its share of the line.
    """

    def __init__(self, cloud: MemoryCloud, bytes_per_s: float) -> None:
        super().__init__(cloud)
        self._bytes_per_s, self._line = bytes_per_s, asyncio.Lock()

    async def submit(self, samples: Sequence[bytes], timeout_s: float) -> detection_pb2.SubmitResponse:
        async def carry() -> detection_pb2.SubmitResponse:
            async with self._line:
                await asyncio.sleep(sum(map(len, samples)) / self._bytes_per_s)
            return await super(NarrowTransport, self).submit(samples, timeout_s)

        try:
            return await asyncio.wait_for(carry(), timeout_s)
        except TimeoutError:
            raise failure(grpc.StatusCode.DEADLINE_EXCEEDED) from None


def test_samples_that_take_the_link_many_deadlines_arrive(
    tmp_path: Path, authority: Authority, signing_key: Ed25519PrivateKey
) -> None:
    """Each takes 0.3 s of the line, six times the deadline, and four would go out at once."""
    write_identity(tmp_path, authority, "127.0.0.1:1", signing_key.public_key())
    counters, meter, cloud = Counters(), LinkMeter(), MemoryCloud()
    spool, verdicts = Spool(tmp_path / "spool.db", SpoolSettings(), counters), VerdictStore(tmp_path / "verdicts.db")
    delivery = Delivery(QUICK, spool, verdicts, meter)
    uplink = Uplink(tmp_path, QUICK, [delivery], lambda *_: NarrowTransport(cloud, 100_000))
    uplink.start()
    large = []
    for number in range(8):
        sample_id = new_sample_id().bytes
        message = sample_pb2.Sample(sample_id=sample_id, payload=sample_pb2.Payload(data=bytes(30_000)))
        large.append(NewSample(sample_id, number / 8, message.SerializeToString()))
    spool.append(large, {})
    wait_for(spool.is_empty)
    uplink.stop()
    spool.close()
    verdicts.close()
    assert len(cloud.samples) == 8
    assert 30_000 < meter.throughput_bytes_per_s < 200_000


class GatedTransport(MemoryTransport):
    """Holds every request until it is let through, and notes what waited when it was made."""

    def __init__(self, cloud: MemoryCloud, spool: Spool) -> None:
        super().__init__(cloud)
        self._spool, self.gate = spool, asyncio.Semaphore(0)
        self.waiting_at: list[tuple[list[float], list[float]]] = []

    async def submit(self, samples: Sequence[bytes], timeout_s: float) -> detection_pb2.SubmitResponse:
        with self._spool._changed:
            in_flight = set(self._spool._in_flight)
        rows = self._spool._store._reader.execute("SELECT seq, sample_id, priority FROM samples").fetchall()
        ids = {sample_pb2.Sample.FromString(data).sample_id for data in samples}
        taken = [priority for _, sample_id, priority in rows if sample_id in ids]
        left = [priority for seq, sample_id, priority in rows if seq not in in_flight and sample_id not in ids]
        self.waiting_at.append((taken, left))
        await self.gate.acquire()
        return await super().submit(samples, timeout_s)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.floats(1e-12, 1.0), max_size=30), min_size=1, max_size=6),
    st.integers(1, 4),
    st.integers(1, 12),
)
def test_no_lower_p_value_waits_behind_a_higher_one_except_those_in_flight(
    arrivals: list[list[float]], in_flight: int, batch: int
) -> None:
    limits = UplinkSettings(in_flight=in_flight, batch_samples=batch, max_batch_age_ms=0)

    async def run(folder: Path) -> None:
        counters = Counters()
        spool, verdicts = Spool(folder / "spool.db", SpoolSettings(), counters), VerdictStore(folder / "verdicts.db")
        transport, link = GatedTransport(MemoryCloud(), spool), LinkState("test")
        link.succeeded()
        delivery = Delivery(limits, spool, verdicts, LinkMeter())
        running = asyncio.create_task(delivery.run(transport, link))
        for group in arrivals:
            durable = threading.Event()
            spool.append(samples_of(group), {}, [durable.set])
            assert await asyncio.to_thread(durable.wait, 5)
            delivery.wake()
            await asyncio.sleep(0.002)
            transport.gate.release()
            await asyncio.sleep(0.002)
        while not spool.is_empty():
            assert not running.done(), running
            transport.gate.release()
            delivery.wake()
            await asyncio.sleep(0.002)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        spool.close()
        verdicts.close()
        for taken, left in transport.waiting_at:
            assert taken
            assert max(taken) <= min(left, default=1.0)
        assert len(transport.cloud.samples) == sum(map(len, arrivals))

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


@pytest.mark.parametrize("steps", range(6))
def test_a_delivery_can_be_cancelled_at_any_moment(steps: int, tmp_path: Path) -> None:
    """Also right after a wake-up: a cancellation lost there would keep the old connection open."""

    async def run() -> None:
        spool, verdicts = Spool(tmp_path / "s.db", SpoolSettings(), Counters()), VerdictStore(tmp_path / "v.db")
        delivery, link = Delivery(QUICK, spool, verdicts, LinkMeter()), LinkState("test")
        link.succeeded()
        running = asyncio.create_task(delivery.run(MemoryTransport(MemoryCloud()), link))
        await asyncio.sleep(0.05)
        delivery.wake()
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=10)
        assert done
        spool.close()
        verdicts.close()

    asyncio.run(run())


class BusyTransport(MemoryTransport):
    """Refuses the first request with a pause, and notes when the next one came."""

    def __init__(self, cloud: MemoryCloud, pause_ms: int) -> None:
        super().__init__(cloud)
        self._pause_ms, self.refused_s, self.pauses_s = pause_ms, 0.0, list[float]()

    async def submit(self, samples: Sequence[bytes], timeout_s: float) -> detection_pb2.SubmitResponse:
        if not self.refused_s:
            self.refused_s = time.monotonic()
            raise failure(grpc.StatusCode.RESOURCE_EXHAUSTED, self._pause_ms)
        self.pauses_s.append(time.monotonic() - self.refused_s)
        return await super().submit(samples, timeout_s)


def test_an_agent_waits_as_long_as_a_busy_service_asks_and_stays_connected(tmp_path: Path) -> None:
    async def run() -> None:
        spool, verdicts = Spool(tmp_path / "s.db", SpoolSettings(), Counters()), VerdictStore(tmp_path / "v.db")
        transport, link = BusyTransport(MemoryCloud(), 400), LinkState("test")
        link.succeeded()
        spool.append(samples_of([number / 40 for number in range(40)]), {})
        running = asyncio.create_task(Delivery(QUICK, spool, verdicts, LinkMeter()).run(transport, link))
        async with asyncio.timeout(20):
            while not spool.is_empty():
                assert link.status.connected
                await asyncio.sleep(0.01)
        await end([running])
        assert link.status.pause_reason
        paused = link.status.model_copy(update={"pause_until_s": time.time() + 30})
        facts = {"live": True, "device_id": "press-07", "process_id": 1, "written_at_s": time.time()}
        assert f"waits    30 s more, as the service asked: {paused.pause_reason}" in list(
            status_lines(ObservedStatus(link=paused, **facts))
        )
        assert not [line for line in status_lines(ObservedStatus(link=link.status, **facts)) if "more, as" in line]
        assert not [pause_s for pause_s in transport.pauses_s if 0.05 < pause_s < 0.39]  # others were sent already
        assert max(transport.pauses_s) >= 0.39
        spool.close()
        verdicts.close()

    asyncio.run(run())


def test_a_task_that_misses_its_cancellation_is_cancelled_again() -> None:
    async def run() -> None:
        async def hard_of_hearing() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(60)

        tasks = [asyncio.create_task(hard_of_hearing()) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.wait_for(end(tasks), 10)
        assert all(task.done() for task in tasks)

    asyncio.run(run())

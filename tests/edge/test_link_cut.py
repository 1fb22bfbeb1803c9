"""The link cut for ten minutes under load, at the agent's own settings.

The ten minutes are those of the event loop that the uplink runs on, whose waits take no time (`virtual_time`): every
back-off, deadline and heartbeat of ten minutes happens. The spool, its disk and its thread are real. `make soak` cuts a
real line for ten minutes of the wall clock.
"""

import asyncio
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.bundles.cache import BundleCache
from edge.bundles.updater import Updater
from edge.counters import Counters
from edge.operation.latency import LatencyHistogram
from edge.settings import SpoolSettings, UplinkSettings
from edge.spool import Spool
from edge.spool_store import NewSample
from edge.uplink import uplink as uplink_module
from edge.uplink.delivery import Delivery
from edge.uplink.events import EventReader
from edge.uplink.link import LinkState
from edge.uplink.meter import LinkMeter
from edge.uplink.transport import Transport
from edge.uplink.uplink import Uplink
from edge.uplink.verdicts import VerdictStore
from shared.samples import new_sample_id
from tests.edge.certificates import Authority, write_identity
from tests.edge.memory_cloud import MemoryCloud, MemoryTransport, failure
from tests.edge.test_transport import wait_for
from tests.edge.virtual_time import VirtualLoop
from vedette.v1 import detection_pb2, fleet_pb2, sample_pb2

CUT_S, MENDED_S, END_S = 60.0, 660.0, 720.0
STEP_S, SAMPLES_A_STEP, PAYLOAD = 10.0, 60, bytes(400)
MOST_GROWTH_BYTES = 2**20


class CutTransport(MemoryTransport):
    """A line that is refused, or, as `is_silent`, lets every call meet its deadline, from CUT_S to MENDED_S."""

    def __init__(self, cloud: MemoryCloud, loop: VirtualLoop, is_silent: bool, attempts: list[float]) -> None:
        super().__init__(cloud)
        self._loop, self._is_silent, self._attempts = loop, is_silent, attempts

    async def _pass(self, timeout_s: float) -> None:
        if not CUT_S <= self._loop.time() < MENDED_S:
            return
        if not self._is_silent:
            raise failure(grpc.StatusCode.UNAVAILABLE)
        await asyncio.sleep(timeout_s)
        raise failure(grpc.StatusCode.DEADLINE_EXCEEDED)

    async def submit(self, samples: Sequence[bytes], timeout_s: float) -> detection_pb2.SubmitResponse:
        self._attempts.append(self._loop.time())
        await self._pass(timeout_s)
        return await super().submit(samples, timeout_s)

    async def heartbeat(self, request: fleet_pb2.HeartbeatRequest, timeout_s: float) -> fleet_pb2.HeartbeatResponse:
        await self._pass(timeout_s)
        return await super().heartbeat(request, timeout_s)


@dataclass
class Load:
    """A source that runs as a job of the uplink, in virtual time: a fixed number of samples a step, until END_S."""

    spool: Spool
    loop: VirtualLoop
    priorities: dict[bytes, float] = field(default_factory=dict)
    most_bytes: int = 0
    traced_bytes: list[tuple[float, int]] = field(default_factory=list)
    next_s: float = 0.0

    async def run(self, transport: Transport, link: LinkState) -> None:
        while self.next_s < END_S:
            await asyncio.sleep(max(0.0, self.next_s - self.loop.time()))
            samples = list(self._samples())
            self.priorities |= {sample.sample_id: sample.priority for sample in samples}
            durable = threading.Event()
            self.spool.append(samples, {"samples_forwarded": len(samples)}, [durable.set])
            self.next_s += STEP_S
            assert await asyncio.to_thread(durable.wait, 20)
            self.most_bytes = max(self.most_bytes, self.spool.status().bytes)
            self.traced_bytes.append((self.loop.time(), tracemalloc.get_traced_memory()[0]))
        await asyncio.Event().wait()

    def _samples(self) -> Iterator[NewSample]:
        for number in range(SAMPLES_A_STEP):
            sample_id = new_sample_id().bytes
            data = sample_pb2.Sample(sample_id=sample_id, payload=sample_pb2.Payload(data=PAYLOAD))
            yield NewSample(sample_id, (number + 0.5) / SAMPLES_A_STEP, data.SerializeToString())


@pytest.mark.parametrize("is_silent", [False, True], ids=["refused", "silent"])
@pytest.mark.parametrize("max_bytes", [256 * 2**20, 2**20], ids=["room", "little room"])
def test_ten_minutes_without_a_link_lose_only_samples_beyond_the_spools_bound(
    tmp_path: Path,
    authority: Authority,
    signing_key: Ed25519PrivateKey,
    monkeypatch: pytest.MonkeyPatch,
    is_silent: bool,
    max_bytes: int,
) -> None:
    monkeypatch.setattr(uplink_module, "diagnose", lambda *_: "the line is cut")  # it would look in real time
    write_identity(tmp_path, authority, "127.0.0.1:1", signing_key.public_key())
    settings, counters, meter, cloud = UplinkSettings(), Counters(), LinkMeter(), MemoryCloud()
    spool = Spool(tmp_path / "spool.db", SpoolSettings(max_bytes=max_bytes), counters)
    verdicts = VerdictStore(tmp_path / "verdicts.db")
    loop, attempts = VirtualLoop(), list[float]()
    load, delivery = Load(spool, loop), Delivery(settings, spool, verdicts, meter)
    reader = EventReader(settings, verdicts, counters, LatencyHistogram(), lambda: None)
    updater = Updater("1", settings, BundleCache(tmp_path / "bundles", []), [], spool, counters, list, meter)
    jobs = [load, delivery, reader, updater]
    uplink = Uplink(tmp_path, settings, jobs, lambda *_: CutTransport(cloud, loop, is_silent, attempts))
    uplink._loop = loop
    spool.listen(lambda: uplink.call_soon(delivery.wake))
    tracemalloc.start()
    uplink.start()
    wait_for(lambda: load.next_s >= END_S and spool.is_empty() and verdicts.awaited() == 0, 60)
    uplink.stop()
    spool.close()
    tracemalloc.stop()

    counts, made = counters.snapshot(), set(load.priorities)
    lost = made - set(cloud.samples)
    assert counts["samples_acknowledged"] == len(cloud.samples)
    assert counts["samples_dropped"] == len(lost)
    assert len(cloud.samples) + len(lost) == len(made) > 4000
    assert load.most_bytes <= max_bytes
    if max_bytes > 2**20:
        assert not lost
        assert load.most_bytes < len(made) * (len(PAYLOAD) + 100)
    else:  # the least suspicious went: of the ten minutes every sample that had room is there
        assert min(load.priorities[sample_id] for sample_id in lost) > 0.2
    verdicts.close()

    during = [at_s for at_s in attempts if CUT_S <= at_s < MENDED_S]
    after_s = min(at_s for at_s in attempts if at_s >= MENDED_S) - MENDED_S
    silent_s = settings.deadline_s * 16 if is_silent else 0.0  # a call that was made before it was mended
    assert after_s <= settings.backoff_max_s + silent_s
    assert (5 if is_silent else 30) <= len(during) <= 400  # neither given up nor without a pause
    before, *_, last = [size for at_s, size in load.traced_bytes if CUT_S + 120 <= at_s < MENDED_S]
    assert last - before < MOST_GROWTH_BYTES

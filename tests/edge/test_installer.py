"""Installation of bundles: its phases, and connections that end during it."""

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.bundles.cache import BundleCache
from edge.bundles.installer import TRANSITIONS, BundleInstaller, Installation, InstallEvent, InstallPhase
from edge.counters import Counters
from shared.bundle import Bundle
from shared.status import RunningBundle
from tests.edge.memory_cloud import MemoryCloud, MemoryTransport
from vedette.v1 import fleet_pb2

WANTED, FETCHED, INTERRUPTED, REFUSED = (
    InstallEvent.WANTED,
    InstallEvent.FETCHED,
    InstallEvent.INTERRUPTED,
    InstallEvent.REFUSED,
)
SWAPPED, PASSED, FAILED = InstallEvent.SWAPPED, InstallEvent.PASSED, InstallEvent.FAILED


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ([], InstallPhase.IDLE),
        ([WANTED], InstallPhase.FETCHING),
        ([WANTED, INTERRUPTED], InstallPhase.IDLE),
        ([WANTED, INTERRUPTED, WANTED, FETCHED], InstallPhase.WARMING),
        ([WANTED, REFUSED], InstallPhase.GIVEN_UP),
        ([WANTED, FETCHED, PASSED], InstallPhase.ACTIVE),
        ([WANTED, FETCHED, FAILED], InstallPhase.ROLLED_BACK),
        ([WANTED, FETCHED, REFUSED], InstallPhase.GIVEN_UP),
        ([WANTED, FETCHED, INTERRUPTED], InstallPhase.IDLE),
        ([WANTED, FETCHED, SWAPPED], InstallPhase.TRIAL),
        ([WANTED, FETCHED, SWAPPED, SWAPPED, PASSED], InstallPhase.ACTIVE),
        ([WANTED, FETCHED, SWAPPED, FAILED], InstallPhase.ROLLED_BACK),
        ([WANTED, FETCHED, SWAPPED, INTERRUPTED], InstallPhase.IDLE),
        ([WANTED, FETCHED, SWAPPED, REFUSED], InstallPhase.GIVEN_UP),
        ([WANTED, FETCHED, SWAPPED, PASSED, WANTED], InstallPhase.FETCHING),
        ([WANTED, FETCHED, SWAPPED, FAILED, WANTED], InstallPhase.FETCHING),
        ([WANTED, REFUSED, WANTED], InstallPhase.FETCHING),
    ],
)
def test_events_lead_to_their_phase(events: list[InstallEvent], end: InstallPhase) -> None:
    installation = Installation()
    for event in events:
        installation.on(event)
    assert installation.phase is end


@pytest.mark.parametrize("phase", InstallPhase)
@pytest.mark.parametrize("event", InstallEvent)
def test_an_event_that_a_phase_does_not_allow_raises_and_changes_nothing(
    phase: InstallPhase, event: InstallEvent
) -> None:
    installation = Installation()
    installation.phase = phase
    if (phase, event) in TRANSITIONS:
        installation.on(event)
        assert installation.phase is TRANSITIONS[phase, event]
        return
    with pytest.raises(ValueError, match=f"{phase} cannot be {event}"):
        installation.on(event)
    assert installation.phase is phase


def test_no_new_bundle_interrupts_one_that_is_under_way() -> None:
    busy = {InstallPhase.FETCHING, InstallPhase.WARMING, InstallPhase.TRIAL}
    assert {phase for phase, event in TRANSITIONS if event is WANTED} == set(InstallPhase) - busy
    assert all({following for (phase, _), following in TRANSITIONS.items() if phase is item} for item in busy)


class Source:
    """A source that follows the bundles of one name; `may_end` ends its trials."""

    def __init__(self, name: str) -> None:
        self.name, self.running_id = name, ""
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.may_end.set()

    def running(self) -> RunningBundle:
        return RunningBundle(source_id=self.name, bundle_name=self.name, bundle_id=self.running_id)

    def follows(self) -> bool:
        return True

    def adopt(self, bundle: Bundle, on_trial: Callable[[], None]) -> bool:
        self.begun.set()
        assert self.may_end.wait(10)
        self.running_id = bundle.manifest.bundle_id
        return True


class ChannelTransport(MemoryTransport):
    """Fetches over a gRPC channel that can be closed."""

    def __init__(self) -> None:
        super().__init__(MemoryCloud())
        self.channel, self.fetched = grpc.aio.insecure_channel("127.0.0.1:1"), list[str]()

    def fetch(self, bundle_id: str, offset: int) -> Any:
        self.fetched.append(bundle_id)
        return self.channel.unary_stream("/vedette.v1.Fleet/FetchBundle")(b"")

    async def close(self) -> None:
        await self.channel.close(None)


class ArchiveTransport(MemoryTransport):
    """Sends an archive of zeros in chunks of 100 kB."""

    class Stream:
        def __init__(self, offset: int) -> None:
            self.offset = offset

        async def read(self) -> fleet_pb2.Chunk:
            chunk = fleet_pb2.Chunk(offset=self.offset, data=bytes(100_000))
            self.offset += len(chunk.data)
            return chunk

        def cancel(self) -> None:
            """No call is under way."""

    def fetch(self, bundle_id: str, offset: int) -> Any:
        return self.Stream(offset)


GOOD_ID = "other-1-0000aaaa"


def desired(name: str, bundle_id: str, archive_bytes: int = 100) -> fleet_pb2.DesiredBundle:
    return fleet_pb2.DesiredBundle(bundle_name=name, bundle_id=bundle_id, archive_bytes=archive_bytes)


@pytest.fixture
def cache(tmp_path: Path, tabular: Bundle, signing_key: Ed25519PrivateKey) -> BundleCache:
    """Return a cache that holds the archive of `tabular`, which no source runs."""
    (tmp_path / f"{tabular.manifest.bundle_id}.bundle").write_bytes(tabular.archive(edge_only=True))
    return BundleCache(tmp_path, [signing_key.public_key()])


def installer_for(cache: BundleCache, *sources: Source) -> BundleInstaller:
    return BundleInstaller(cache, sources, Counters(), 5.0, lambda: None)


async def ended(installer: BundleInstaller) -> None:
    assert installer.task is not None
    await asyncio.wait([installer.task], timeout=10)
    assert installer.task.done()


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_connection_that_ends_during_a_refusal_does_not_block_later_bundles(
    is_cancelled: bool, cache: BundleCache, tabular: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_failed, begun, may_end = cache.mark_failed, threading.Event(), threading.Event()

    def slowly(name: str, bundle_id: str, reason: str) -> None:
        begun.set()
        assert may_end.wait(10)
        mark_failed(name, bundle_id, reason)

    monkeypatch.setattr(cache, "mark_failed", slowly)
    manifest, transport = tabular.manifest, MemoryTransport(MemoryCloud())
    installer = installer_for(cache, Source(manifest.name))
    installer.want(transport, [desired(manifest.name, "impossible-1-0000aaaa", archive_bytes=0)])
    assert await asyncio.to_thread(begun.wait, 10)
    installer.disconnect()
    if is_cancelled:
        assert installer.task is not None
        installer.task.cancel()
    await asyncio.sleep(0.05)
    may_end.set()
    await ended(installer)
    assert installer.phase is InstallPhase.GIVEN_UP
    installer.want(transport, [desired(manifest.name, manifest.bundle_id)])
    await ended(installer)
    assert installer.task is not None
    assert installer.task.exception() is None
    assert installer.phase is InstallPhase.ACTIVE


async def test_a_connection_that_ends_during_a_trial_leaves_the_next_bundle_to_the_next_connection(
    cache: BundleCache, tabular: Bundle
) -> None:
    manifest, first, second = tabular.manifest, ChannelTransport(), ChannelTransport()
    source = Source(manifest.name)
    source.may_end.clear()
    installer = installer_for(cache, source, Source("other"))
    wanted = [desired(manifest.name, manifest.bundle_id), desired("other", GOOD_ID)]
    installer.want(first, wanted)
    assert await asyncio.to_thread(source.begun.wait, 10)
    installer.disconnect()
    await first.close()
    installer.want(second, wanted)  # the task is busy
    source.may_end.set()
    await ended(installer)
    assert installer.phase is InstallPhase.ACTIVE
    assert first.fetched == second.fetched == []
    installer.want(second, wanted)
    await asyncio.sleep(0.05)
    assert second.fetched == [GOOD_ID]
    assert cache.failure(GOOD_ID) == ""
    installer.disconnect()
    await ended(installer)
    await second.close()


@pytest.mark.parametrize("error", [None, RuntimeError("the transport is closed")])
async def test_a_closed_transport_interrupts_a_fetch_and_refuses_no_bundle(
    error: Exception | None, cache: BundleCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport, installer = ChannelTransport(), installer_for(cache, Source("other"))
    if error is not None:

        def fail(bundle_id: str, offset: int) -> None:
            installer.disconnect()
            raise error

        monkeypatch.setattr(transport, "fetch", fail)
    await transport.close()
    installer.want(transport, [desired("other", GOOD_ID)])
    await asyncio.sleep(0.1)
    assert installer.phase is InstallPhase.IDLE
    assert cache.failure(GOOD_ID) == ""
    installer.disconnect()
    await ended(installer)
    working = ChannelTransport()
    installer.want(working, [desired("other", GOOD_ID)])
    await asyncio.sleep(0.05)
    assert working.fetched == [GOOD_ID]
    installer.disconnect()
    await ended(installer)
    await working.close()


async def test_a_fetch_onto_a_full_disk_names_the_file_the_free_space_and_the_next_step(
    cache: BundleCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.partial(GOOD_ID).symlink_to("/dev/full")  # a real device that refuses every byte
    installer = installer_for(cache, Source("other"))
    with caplog.at_level("WARNING", logger="vedette"):
        installer.want(ArchiveTransport(MemoryCloud()), [desired("other", GOOD_ID, archive_bytes=5 * 2**20)])
        while not caplog.records:
            await asyncio.sleep(0.01)
    text = str(vars(caplog.records[0])["fields"])
    assert f"disk full: {cache.partial(GOOD_ID)} cannot be written, " in text
    assert re.search(r"[0-9,]+ MiB free at /\S*, the bundle takes 5.0 MiB", text)
    assert "free some space; it is tried again" in text
    assert installer.phase is InstallPhase.IDLE
    assert cache.failure(GOOD_ID) == ""
    installer.disconnect()
    await ended(installer)


async def test_an_unexpected_error_of_an_open_transport_refuses_the_bundle(
    cache: BundleCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport, installer = MemoryTransport(MemoryCloud()), installer_for(cache, Source("other"))

    def fail(bundle_id: str, offset: int) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(transport, "fetch", fail)
    installer.want(transport, [desired("other", GOOD_ID)])
    await ended(installer)
    assert installer.phase is InstallPhase.GIVEN_UP
    assert "unexpected" in cache.failure(GOOD_ID)

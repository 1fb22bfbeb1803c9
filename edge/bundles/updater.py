"""Heartbeats, and the bundles they ask for: fetched from where it broke off, verified, warmed up, swapped in."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import grpc

from edge.bundles.cache import BundleCache
from edge.counters import WIRE_NAMES, Counters
from edge.settings import UplinkSettings
from edge.spool import Spool
from edge.uplink.link import LinkState
from edge.uplink.meter import LinkMeter
from edge.uplink.tasks import happens
from edge.uplink.transport import Transport
from shared.backoff import HALF_JITTER, Backoff
from shared.bundle import MAX_ARCHIVE_BYTES, Bundle
from shared.errors import BundleError, BundleIntegrityError, DataError, EngineError, VedetteError
from shared.logs import EventLog, Throttle
from vedette.v1 import fleet_pb2

MOST_TRIALS = 3  # of one bundle that come to no end: a power cut may end one, but hardly each
_MAX_WARNINGS, _MAX_WARNING_CHARACTERS = 16, 200
_MAX_HEARTBEAT_S = 3600.0

log = EventLog("updater")


class Follower(Protocol):
    """A source's pipeline, as the updater sees it."""

    def running(self) -> fleet_pb2.RunningBundle:
        """What it runs now; the bundle id is empty while it waits for one."""
        ...

    def follows(self) -> bool:
        """Whether new bundles shall take over at all."""
        ...

    def adopt(self, bundle: Bundle) -> bool:
        """Warm up the bundle beside the running one and swap between two batches; False: it was rolled back.

        Blocks until it has proved itself. Raises BundleError or EngineError if it cannot run here.
        """
        ...


class Updater:
    """Reports to the cloud and follows its wishes. A job of the uplink."""

    def __init__(
        self,
        version: str,
        settings: UplinkSettings,
        cache: BundleCache,
        followers: Sequence[Follower],
        spool: Spool,
        counters: Counters,
        warnings: Callable[[], Sequence[str]],
        meter: LinkMeter,
    ) -> None:
        self._version, self._settings, self._cache = version, settings, cache
        self._followers, self._spool, self._counters, self._warnings = followers, spool, counters, warnings
        self._meter = meter
        self._nudge = asyncio.Event()
        self._fetching: asyncio.Task[None] | None = None
        self._installing: asyncio.Task[None] | None = None
        self._fetch_backoff = Backoff(1.0, 60.0, jitter=HALF_JITTER)
        self._throttle = Throttle()

    def nudge(self) -> None:
        """Send the next heartbeat now; call it on the uplink's loop."""
        self._nudge.set()

    async def run(self, transport: Transport, link: LinkState) -> None:
        """See `Job.run`."""
        backoff = Backoff(self._settings.backoff_initial_s, self._settings.backoff_max_s, jitter=HALF_JITTER)
        try:
            while True:
                wait_s = self._settings.heartbeat_s
                try:
                    started_s = time.monotonic()
                    response = await transport.heartbeat(self._request(), self._settings.deadline_s)
                    self._meter.answered_in(time.monotonic() - started_s)
                    link.succeeded()
                    backoff.reset()
                    wait_s = min(float(response.next_heartbeat_s) or wait_s, _MAX_HEARTBEAT_S)
                    self._follow(transport, list(response.desired))
                except grpc.aio.AioRpcError as error:
                    link.failed(error)
                    wait_s = min(wait_s, backoff.next_s())
                await self._sleep(wait_s)
        finally:
            if self._fetching is not None:
                self._fetching.cancel()

    async def _sleep(self, seconds: float) -> None:
        if await happens(self._nudge, seconds):
            self._nudge.clear()

    def _request(self) -> fleet_pb2.HeartbeatRequest:
        counts, spool = self._counters.snapshot(), self._spool.status()
        try:
            self._counters.save()  # what was told never goes down
        except OSError as error:
            if self._throttle.allow("counters"):
                log.error("counters_not_saved", error=error, advice="free some space")
        return fleet_pb2.HeartbeatRequest(
            agent_version=self._version,
            counters=fleet_pb2.Counters(**{name: counts[name] for name in WIRE_NAMES}),
            running=[follower.running() for follower in self._followers],
            spool_samples=spool.samples,
            spool_bytes=spool.bytes,
            warnings=[text[:_MAX_WARNING_CHARACTERS] for text in self._warnings()][:_MAX_WARNINGS],
        )

    def _follow(self, transport: Transport, desired: list[fleet_pb2.DesiredBundle]) -> None:
        """Start fetching what is wanted and not running, unless that is under way."""
        if any(task is not None and not task.done() for task in (self._fetching, self._installing)):
            return
        wanted = [item for item in desired if self._behind(item) and not self._cache.failure(item.bundle_id)]
        if wanted:
            self._fetching = asyncio.create_task(self._update(transport, wanted))

    def _behind(self, desired: fleet_pb2.DesiredBundle) -> list[Follower]:
        return [
            follower
            for follower in self._followers
            if follower.follows()
            and follower.running().bundle_name == desired.bundle_name
            and follower.running().bundle_id != desired.bundle_id
        ]

    async def _update(self, transport: Transport, wanted: list[fleet_pb2.DesiredBundle]) -> None:
        for desired in wanted:
            try:
                bundle = await self._obtain(transport, desired)
            except (BundleIntegrityError, OSError, grpc.aio.AioRpcError) as error:
                text = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.RpcError) else str(error)
                log.warning("fetch_failed", bundle=desired.bundle_id, error=text, advice="it is tried again")
                await asyncio.sleep(self._fetch_backoff.next_s())
            except Exception as error:  # a VedetteError, or what nobody foresaw of a bundle that came as announced
                await self._give_up(desired, error)
            else:  # what is begun is ended, also when the connection is made anew: a trial is a trial
                self._installing = asyncio.create_task(self._install_all(desired, bundle))
                await asyncio.shield(self._installing)
            self.nudge()

    async def _install_all(self, desired: fleet_pb2.DesiredBundle, bundle: Bundle) -> None:
        """Install with all who follow that name. Raises nothing: nobody may be left to hear of it."""
        try:
            for follower in self._behind(desired):
                await self._install(follower, bundle)
            self._fetch_backoff.reset()
        except OSError as error:
            log.warning("install_failed", bundle=desired.bundle_id, error=error, advice="it is tried again")
            await asyncio.sleep(self._fetch_backoff.next_s())
        except Exception as error:
            await self._give_up(desired, error)
        self.nudge()

    async def _give_up(self, desired: fleet_pb2.DesiredBundle, error: Exception) -> None:
        reason = str(error) if isinstance(error, VedetteError) else repr(error)
        await asyncio.to_thread(self._refuse, desired.bundle_name, desired.bundle_id, reason)

    async def _install(self, follower: Follower, bundle: Bundle) -> None:
        manifest = bundle.manifest
        if await asyncio.to_thread(self._cache.begin_trial, manifest.bundle_id) > MOST_TRIALS:
            raise BundleError(f"the agent ended {MOST_TRIALS} times while it tried this bundle")
        try:
            proved = await asyncio.to_thread(follower.adopt, bundle)
        except (BundleError, EngineError) as error:
            proved = False
            self._counters.add({"bundles_refused": 1})
            log.error("bundle_unusable", bundle=manifest.bundle_id, error=error, advice="the one before runs on")
        except DataError:  # the source's fault, and said by its pipeline
            proved = True
        if proved:
            await asyncio.to_thread(self._cache.make_current, manifest.name, manifest.bundle_id)
        else:
            await asyncio.to_thread(
                self._cache.mark_failed, manifest.name, manifest.bundle_id, "it failed on this device"
            )

    def _refuse(self, name: str, bundle_id: str, reason: str) -> None:
        self._counters.add({"bundles_refused": 1})
        with contextlib.suppress(OSError):  # it is marked in memory; after a restart it is tried once more
            self._cache.mark_failed(name, bundle_id, reason)
        log.error("bundle_refused", bundle=bundle_id, error=reason, advice="the one before runs on")

    async def _obtain(self, transport: Transport, desired: fleet_pb2.DesiredBundle) -> Bundle:
        """The bundle, from the cache or from the cloud."""
        bundle_id = desired.bundle_id
        if self._cache.has(bundle_id):
            try:
                return await asyncio.to_thread(self._cache.open_id, bundle_id)
            except BundleError as error:
                log.warning("cached_bundle_unusable", bundle=bundle_id, error=error, advice="it is fetched again")
        await self._fetch(transport, desired)
        bundle = await asyncio.to_thread(self._cache.accept, bundle_id, desired.archive_sha256)
        if bundle.manifest.name != desired.bundle_name:
            raise BundleError(f"{bundle_id} is of the name {bundle.manifest.name!r}, not {desired.bundle_name!r}.")
        log.info("bundle_fetched", bundle=bundle_id, bytes=desired.archive_bytes)
        return bundle

    async def _fetch(self, transport: Transport, desired: fleet_pb2.DesiredBundle) -> None:
        """Append to the partial archive until it has its announced size. Raises AioRpcError, OSError, BundleError."""
        if not 0 < desired.archive_bytes <= MAX_ARCHIVE_BYTES:
            raise BundleError(f"{desired.bundle_id}: announced with {desired.archive_bytes} bytes.")
        part = self._cache.partial(desired.bundle_id)
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            offset = file.tell()
            if offset >= desired.archive_bytes:  # whole already, or too much: the hash will tell
                return
            log.info("bundle_fetching", bundle=desired.bundle_id, from_byte=offset, bytes=desired.archive_bytes)
            stream = transport.fetch(desired.bundle_id, offset)
            try:
                while offset < desired.archive_bytes:
                    async with asyncio.timeout(self._settings.deadline_s):
                        chunk = await stream.read()
                    if chunk is None:
                        break
                    size = len(chunk.data)
                    if chunk.offset != offset or not 0 < size <= desired.archive_bytes - offset:
                        raise BundleIntegrityError(
                            f"{desired.bundle_id}: at byte {offset} came {size} of {chunk.offset}."
                        )
                    file.write(chunk.data)
                    file.flush()  # a process that ends here goes on from here
                    offset += size
            except TimeoutError:
                raise BundleIntegrityError(f"{desired.bundle_id}: the fetch stalls at byte {offset}.") from None
            finally:
                stream.cancel()
        if offset < desired.archive_bytes:
            raise BundleIntegrityError(f"{desired.bundle_id}: the fetch ended at byte {offset}; it goes on from there.")

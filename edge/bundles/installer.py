"""Installation of new bundles on a device: one state machine, owned by one task on the uplink's loop."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

import grpc

from edge.bundles.cache import BundleCache
from edge.bundles.fetching import fetch_archive
from edge.counters import Counters
from edge.disk import free_text, is_full
from edge.uplink.transport import Transport
from shared.backoff import HALF_JITTER, Backoff
from shared.bundle import Bundle
from shared.errors import BundleError, BundleIntegrityError, DataError, EngineError, UntrustedBundleError, VedetteError
from shared.logs import EventLog
from shared.status import RunningBundle
from vedette.v1 import fleet_pb2

MAX_ATTEMPTS = 3  # that end without a result, as when the process dies: a power cut may be the reason once
RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0

log = EventLog("bundles")


class InstallPhase(StrEnum):
    """Where the installation of a bundle stands."""

    IDLE = "idle"  # nothing to install, or waiting for a retry
    FETCHING = "fetching"
    WARMING = "warming"  # loaded beside the running screener; counted on disk as an attempt
    TRIAL = "trial"  # its screener judges the first batches
    ACTIVE = "active"
    ROLLED_BACK = "rolled back"  # the bundle before runs again; this one is not tried again
    GIVEN_UP = "given up"  # it cannot run here; it is not tried again


class InstallEvent(StrEnum):
    """What can happen to an installation."""

    WANTED = "wanted"
    FETCHED = "fetched"
    INTERRUPTED = "interrupted"  # by the link or the disk: tried again later
    REFUSED = "refused"  # not a bundle to trust, too many attempts, or an unexpected error
    SWAPPED = "swapped"  # the screener was offered to its source
    PASSED = "passed"
    FAILED = "failed"


TRANSITIONS: dict[tuple[InstallPhase, InstallEvent], InstallPhase] = {
    (InstallPhase.IDLE, InstallEvent.WANTED): InstallPhase.FETCHING,
    (InstallPhase.ACTIVE, InstallEvent.WANTED): InstallPhase.FETCHING,
    (InstallPhase.ROLLED_BACK, InstallEvent.WANTED): InstallPhase.FETCHING,
    (InstallPhase.GIVEN_UP, InstallEvent.WANTED): InstallPhase.FETCHING,
    (InstallPhase.FETCHING, InstallEvent.FETCHED): InstallPhase.WARMING,
    (InstallPhase.FETCHING, InstallEvent.INTERRUPTED): InstallPhase.IDLE,
    (InstallPhase.FETCHING, InstallEvent.REFUSED): InstallPhase.GIVEN_UP,
    (InstallPhase.WARMING, InstallEvent.SWAPPED): InstallPhase.TRIAL,
    (
        InstallPhase.WARMING,
        InstallEvent.PASSED,
    ): InstallPhase.ACTIVE,  # the first bundle of its source, or no source needs it any more
    (InstallPhase.WARMING, InstallEvent.FAILED): InstallPhase.ROLLED_BACK,
    (InstallPhase.WARMING, InstallEvent.INTERRUPTED): InstallPhase.IDLE,
    (InstallPhase.WARMING, InstallEvent.REFUSED): InstallPhase.GIVEN_UP,
    (InstallPhase.TRIAL, InstallEvent.SWAPPED): InstallPhase.TRIAL,  # at another source of the same bundle
    (InstallPhase.TRIAL, InstallEvent.PASSED): InstallPhase.ACTIVE,
    (InstallPhase.TRIAL, InstallEvent.FAILED): InstallPhase.ROLLED_BACK,
    (InstallPhase.TRIAL, InstallEvent.INTERRUPTED): InstallPhase.IDLE,
    (InstallPhase.TRIAL, InstallEvent.REFUSED): InstallPhase.GIVEN_UP,
}


class Installation:
    """State of the installation under way, or of the last one."""

    def __init__(self) -> None:
        self.phase = InstallPhase.IDLE

    def on(self, event: InstallEvent) -> None:
        """Move to the next phase; raises ValueError for an event that the phase does not allow."""
        following = TRANSITIONS.get((self.phase, event))
        if following is None:
            raise ValueError(f"an installation that is {self.phase} cannot be {event}")
        log.debug("installation", phase=following, before=self.phase, event_type=event)
        self.phase = following


class BundleFollower(Protocol):
    """A source's pipeline, as the installer sees it."""

    def running(self) -> RunningBundle:
        """Return what the source runs now; the bundle id is empty while it waits for one."""
        ...

    def follows(self) -> bool:
        """Return whether new bundles replace the running one."""
        ...

    def adopt(self, bundle: Bundle, on_trial: Callable[[], None]) -> bool:
        """Warm up the bundle beside the running one, swap between two batches, and wait for the trial's end.

        Calls `on_trial` from the same thread when the swap is offered. Returns False if the bundle was rolled back.
        Blocks. Raises BundleError or EngineError if the bundle cannot run here, DataError for the source's own fault.
        """
        ...


class BundleInstaller:
    """Installs wanted bundles, one at a time, in a task that outlives connections. Used on the uplink's loop only."""

    def __init__(
        self,
        cache: BundleCache,
        followers: Sequence[BundleFollower],
        counters: Counters,
        deadline_s: float,
        on_change: Callable[[], None],
    ) -> None:
        self._cache, self._followers, self._counters = cache, followers, counters
        self._deadline_s, self._on_change = deadline_s, on_change
        self._backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S, jitter=HALF_JITTER)
        self._installation = Installation()
        self._transport: Transport | None = None  # of the task, until its connection ends
        self.task: asyncio.Task[None] | None = None

    @property
    def phase(self) -> InstallPhase:
        """Phase of the installation under way, or of the last one."""
        return self._installation.phase

    def want(self, transport: Transport, desired: Sequence[fleet_pb2.DesiredBundle]) -> None:
        """Start to install the desired bundles that no source runs yet, unless the task is busy.

        The archive of a bundle that runs is fetched again if no trusted key signed the one in the cache.
        """
        if self.task is not None and not self.task.done():
            return
        wanted = [
            item
            for item in desired
            if (self._behind(item) or (self._cache.is_stale(item.bundle_id) and self._runs(item)))
            and not self._cache.failure(item.bundle_id)
        ]
        if wanted:
            self._transport = transport
            self.task = asyncio.create_task(self._install_each(transport, wanted))

    def disconnect(self) -> None:
        """End a fetch, because its connection ends; it resumes at the next one. A trial or a refusal goes on."""
        self._transport = None
        if self.task is not None and self.phase in (InstallPhase.FETCHING, InstallPhase.IDLE):
            self.task.cancel()

    def _behind(self, desired: fleet_pb2.DesiredBundle) -> list[BundleFollower]:
        return [
            follower
            for follower in self._followers
            if follower.follows()
            and follower.running().bundle_name == desired.bundle_name
            and follower.running().bundle_id != desired.bundle_id
        ]

    def _runs(self, desired: fleet_pb2.DesiredBundle) -> bool:
        return any(follower.running().bundle_id == desired.bundle_id for follower in self._followers)

    async def _install_each(self, transport: Transport, wanted: Sequence[fleet_pb2.DesiredBundle]) -> None:
        """Install one bundle after the other; after a disconnection the rest is left to the next connection."""
        for desired in wanted:
            if self._transport is not transport:
                return
            self._installation.on(InstallEvent.WANTED)
            try:
                await self._install(transport, desired)
            except asyncio.CancelledError:
                self._installation.on(InstallEvent.INTERRUPTED)
                raise
            except Exception as error:
                if self._is_interruption(error, transport):
                    await self._interrupt(desired, error, transport)
                else:
                    await self._refuse(desired, error)
            self._on_change()

    def _is_interruption(self, error: Exception, transport: Transport) -> bool:
        """Return whether a later attempt can succeed: the link, the disk or a closed transport caused the error."""
        if isinstance(error, UntrustedBundleError):
            return False
        if isinstance(error, (BundleIntegrityError, OSError, grpc.aio.AioRpcError, grpc.aio.UsageError)):
            return True
        is_closed = self.phase is InstallPhase.FETCHING and self._transport is not transport
        return is_closed and not isinstance(error, VedetteError)

    async def _interrupt(self, desired: fleet_pb2.DesiredBundle, error: Exception, transport: Transport) -> None:
        """Log an interruption, and wait before the next attempt unless the connection has ended."""
        text = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.aio.AioRpcError) else str(error)
        advice = "it is tried again"
        if is_full(error):
            text, advice = await asyncio.to_thread(self._without_space, desired), f"free some space; {advice}"
        log.warning("install_interrupted", bundle=desired.bundle_id, phase=self.phase, error=text, advice=advice)
        self._installation.on(InstallEvent.INTERRUPTED)
        if self._transport is transport:
            await asyncio.sleep(self._backoff.next_s())

    def _without_space(self, desired: fleet_pb2.DesiredBundle) -> str:
        """Return the text of a full disk: the file, the free space and the size of the bundle."""
        part = self._cache.partial(desired.bundle_id)
        needed = f"the bundle takes {desired.archive_bytes / 2**20:,.1f} MiB"
        try:
            return f"disk full: {part} cannot be written, {free_text(part)}, {needed}"
        except OSError as error:  # of a disk that has gone
            return f"disk full: {part} cannot be written ({error}), {needed}"

    async def _refuse(self, desired: fleet_pb2.DesiredBundle, error: Exception) -> None:
        """Give up a bundle, for a VedetteError or an unexpected error.

        An archive that no trusted key signed is only left out until the keys change, and a bundle that runs is kept.

        The phase changes first: a task that is cancelled while it waits for the disk must not stay in FETCHING.
        """
        self._installation.on(InstallEvent.REFUSED)
        reason = str(error) if isinstance(error, VedetteError) else repr(error)
        for_good = not (isinstance(error, UntrustedBundleError) or self._runs(desired))
        await asyncio.to_thread(self._note_refusal, desired.bundle_name, desired.bundle_id, reason, for_good)

    async def _install(self, transport: Transport, desired: fleet_pb2.DesiredBundle) -> None:
        bundle = await self._obtain(transport, desired)
        self._installation.on(InstallEvent.FETCHED)
        passed = True
        for follower in self._behind(desired):
            passed = await self._try(follower, bundle) and passed
        self._installation.on(InstallEvent.PASSED if passed else InstallEvent.FAILED)
        self._backoff.reset()

    async def _try(self, follower: BundleFollower, bundle: Bundle) -> bool:
        """Install a bundle at one source; the attempt is counted on disk until it has a result."""
        manifest, loop = bundle.manifest, asyncio.get_running_loop()
        if await asyncio.to_thread(self._cache.begin_trial, manifest.bundle_id) > MAX_ATTEMPTS:
            raise BundleError(f"the agent ended {MAX_ATTEMPTS} times while it tried this bundle")

        def on_trial() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the agent ends
                loop.call_soon_threadsafe(self._installation.on, InstallEvent.SWAPPED)

        try:
            passed = await asyncio.to_thread(follower.adopt, bundle, on_trial)
        except (BundleError, EngineError) as error:
            passed = False
            self._counters.add({"bundles_refused": 1})
            log.error("bundle_unusable", bundle=manifest.bundle_id, error=error, advice="the previous bundle runs on")
        except DataError:  # the source's fault, which its pipeline has logged
            passed = True
        if passed:
            await asyncio.to_thread(self._cache.make_current, manifest.name, manifest.bundle_id)
        else:
            reason = "it failed on this device"
            await asyncio.to_thread(self._cache.mark_failed, manifest.name, manifest.bundle_id, reason)
        return passed

    def _note_refusal(self, name: str, bundle_id: str, reason: str, for_good: bool) -> None:
        self._counters.add({"bundles_refused": 1})
        if not for_good:
            self._cache.refuse(bundle_id, reason)
            log.error("bundle_refused", bundle=bundle_id, error=reason, advice="it is tried again with other keys")
            return
        with contextlib.suppress(OSError):  # it is marked in memory; after a restart it is tried once more
            self._cache.mark_failed(name, bundle_id, reason)
        log.error("bundle_refused", bundle=bundle_id, error=reason, advice="the previous bundle runs on")

    async def _obtain(self, transport: Transport, desired: fleet_pb2.DesiredBundle) -> Bundle:
        """Return the bundle from the cache, or fetch it."""
        bundle_id = desired.bundle_id
        if self._cache.has(bundle_id):
            try:
                return await asyncio.to_thread(self._cache.open_id, bundle_id)
            except BundleError as error:
                log.warning("cached_bundle_unusable", bundle=bundle_id, error=error, advice="it is fetched again")
        await fetch_archive(transport, desired, self._cache.partial(bundle_id), self._deadline_s)
        bundle = await asyncio.to_thread(self._cache.accept, bundle_id, desired.archive_sha256)
        if bundle.manifest.name != desired.bundle_name:
            raise BundleError(f"{bundle_id} has the name {bundle.manifest.name!r}, not {desired.bundle_name!r}.")
        log.info("bundle_fetched", bundle=bundle_id, bytes=desired.archive_bytes)
        return bundle

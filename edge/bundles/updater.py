"""Heartbeats to the service, which answers with the bundles that the device should run."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import grpc

from edge.bundles.cache import BundleCache
from edge.bundles.installer import BundleFollower, BundleInstaller
from edge.counters import Counters
from edge.settings import UplinkSettings
from edge.spool import Spool
from edge.uplink.group_settings import FollowedSettings
from edge.uplink.link import LinkState
from edge.uplink.meter import LinkMeter
from edge.uplink.tasks import happens
from edge.uplink.transport import Transport
from edge.uplink.trust import BundleKeys
from shared.backoff import HALF_JITTER, Backoff
from shared.logs import EventLog, Throttle
from shared.status import MAX_NEAR_COPIES, Heartbeat, HeartbeatCounters, NearCopies
from vedette.v1 import fleet_pb2

_MAX_WARNINGS, _MAX_WARNING_CHARACTERS = 16, 400
_MAX_HEARTBEAT_S = 3600.0

log = EventLog("updater")


class CopyReporter(Protocol):
    """Counts of near copies of one source, which heartbeats carry."""

    def to_report(self) -> Sequence[NearCopies]:
        """Return the counts that the service does not have yet."""
        ...

    def confirm(self, reported: Sequence[NearCopies]) -> None:
        """Note that the service has these counts."""
        ...


class Updater:
    """Reports to the service and passes the desired bundles on to the installer. A job of the uplink."""

    def __init__(
        self,
        version: str,
        settings: UplinkSettings,
        cache: BundleCache,
        followers: Sequence[BundleFollower],
        spool: Spool,
        counters: Counters,
        warnings: Callable[[], Sequence[str]],
        meter: LinkMeter,
        bundle_keys: BundleKeys | None = None,
        group: FollowedSettings | None = None,
        repeats: Sequence[CopyReporter] = (),
    ) -> None:
        self._repeats = deque(repeats)
        self._cache, self._bundle_keys, self._group = cache, bundle_keys, group
        self._version, self._settings = version, settings
        self._followers, self._spool, self._counters, self._warnings = followers, spool, counters, warnings
        self._meter = meter
        self._nudge = asyncio.Event()
        self.published: frozenset[str] | None = None  # names of the service's bundles; None before its first answer
        self.clock_offset_s: float | None = None  # the device's clock minus the service's
        self.installer = BundleInstaller(cache, followers, counters, settings.deadline_s, self.nudge)
        self._throttle = Throttle()

    def nudge(self) -> None:
        """Send the next heartbeat now. Call it on the uplink's loop."""
        self._nudge.set()

    async def run(self, transport: Transport, link: LinkState) -> None:
        """Send heartbeats until cancelled; see `Job.run`."""
        backoff = Backoff(self._settings.backoff_initial_s, self._settings.backoff_max_s, jitter=HALF_JITTER)
        try:
            while True:
                wait_s = self._settings.heartbeat_s
                try:
                    started_s, sent_at_s = time.monotonic(), time.time()
                    copies = self._near_copies()
                    heartbeat = self._heartbeat([count for _, counts in copies for count in counts])
                    response = await transport.heartbeat(heartbeat.to_message(), self._settings.deadline_s)
                    took_s = time.monotonic() - started_s
                    self._meter.answered_in(took_s)
                    link.succeeded()
                    for item, counts in copies:
                        item.confirm(counts)
                    self.published = frozenset(item.bundle_name for item in response.desired)
                    if response.service_time_ms:
                        self.clock_offset_s = sent_at_s + took_s / 2 - response.service_time_ms / 1000
                    backoff.reset()
                    wait_s = min(float(response.next_heartbeat_s) or wait_s, _MAX_HEARTBEAT_S)
                    await self._follow_group(response)
                    await self._follow_keys(response.key_sets)
                    self.installer.want(transport, list(response.desired))
                except grpc.aio.AioRpcError as error:
                    link.failed(error)
                    wait_s = min(wait_s, backoff.next_s())
                if await happens(self._nudge, wait_s):
                    self._nudge.clear()
        finally:
            self.installer.disconnect()

    async def _follow_group(self, response: fleet_pb2.HeartbeatResponse) -> None:
        """Adopt the settings of the group, and confirm or refuse them with the next heartbeat, at once."""
        if self._group is None or not response.HasField("settings"):
            return
        if await asyncio.to_thread(self._group.follow, response.settings):
            self.nudge()

    async def _follow_keys(self, key_sets: Sequence[fleet_pb2.KeySet]) -> None:
        """Adopt new key sets before bundles are fetched, and confirm them with the next heartbeat, at once."""
        if self._bundle_keys is not None and await asyncio.to_thread(self._bundle_keys.follow, key_sets):
            await asyncio.to_thread(self._cache.trust, self._bundle_keys.keys)
            self.nudge()

    def _near_copies(self) -> list[tuple[CopyReporter, Sequence[NearCopies]]]:
        """Return the counts to report of each source, at most MAX_NEAR_COPIES in all.

        Each call begins at the next source, so that none waits for another.
        """
        self._repeats.rotate(-1)
        room = MAX_NEAR_COPIES
        found: list[tuple[CopyReporter, Sequence[NearCopies]]] = []
        for item in self._repeats:
            counts = list(item.to_report())[:room]
            room -= len(counts)
            found.append((item, counts))
        return found

    def _heartbeat(self, near_copies: Sequence[NearCopies]) -> Heartbeat:
        counts, spool = self._counters.snapshot(), self._spool.status()
        try:
            self._counters.save()  # so that reported counts never decrease
        except OSError as error:
            if self._throttle.allow("counters"):
                log.error("counters_not_saved", error=error, advice="free some space")
        return Heartbeat(
            agent_version=self._version,
            counters=HeartbeatCounters.model_validate(counts),
            running=tuple(follower.running() for follower in self._followers),
            spool_samples=spool.samples,
            spool_bytes=spool.bytes,
            warnings=tuple(text[:_MAX_WARNING_CHARACTERS] for text in list(self._warnings())[:_MAX_WARNINGS]),
            sent_at_ms=int(time.time() * 1000),
            key_set_sha256=self._bundle_keys.sha256 if self._bundle_keys is not None else "",
            settings=self._group.in_force if self._group is not None else None,
            disk_free_bytes=self._spool.free_bytes(),
            settings_refusal=self._group.refusal if self._group is not None else "",
            near_copies=tuple(near_copies),
        )

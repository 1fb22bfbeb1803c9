"""Thread of the uplink: keeps a connection to the service and runs the jobs that use it."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from edge.settings import UplinkSettings
from edge.uplink.identity import load_identity
from edge.uplink.link import LinkState, diagnose
from edge.uplink.tasks import end, happens
from edge.uplink.transport import Connect, GrpcTransport, Transport
from shared.errors import CertificateError
from shared.logs import EventLog
from shared.status import LinkStatus

DIAGNOSE_EVERY_S = 30.0
IDENTITY_RETRY_S = 30.0
STOP_GRACE_S = 2.0

log = EventLog("uplink")


class Job(Protocol):
    """Task that uses the transport until cancelled and handles failed calls itself."""

    async def run(self, transport: Transport, link: LinkState) -> None:
        """Work over `transport`; restarted with a new one after each reconnect."""
        ...


class Uplink:
    """Owns the link. Start it once, stop it once."""

    def __init__(
        self, state_dir: Path, settings: UplinkSettings, jobs: Sequence[Job], connect: Connect = GrpcTransport
    ) -> None:
        """Check the device's identity; raises CertificateError if it cannot be used."""
        self._state_dir, self._settings, self._jobs, self._connect = state_dir, settings, jobs, connect
        self.identity = load_identity(state_dir)
        self.address = settings.address or self.identity.address
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self.link = LinkState(self.address)
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    @property
    def status(self) -> LinkStatus:
        """State of the link."""
        return self.link.status

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call `function` on the uplink's loop; after the end it is not called."""
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed
            log.debug("called_after_end")

    def stop(self, timeout_s: float = STOP_GRACE_S + 1.0) -> None:
        """End all calls and wait for the thread."""
        if self._thread.is_alive():
            self.call_soon(self._stopping.set)
            self._thread.join(timeout_s)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        finally:
            self._loop.close()

    async def _main(self) -> None:
        while not self._stopping.is_set():
            try:
                self.identity = load_identity(self._state_dir)  # possibly renewed
            except CertificateError as error:
                self.link.explain(str(error))
                await self._sleep(IDENTITY_RETRY_S)
                continue
            try:
                await self._session()
            except Exception as error:  # without this thread nothing is delivered
                log.error("session_failed", error=repr(error), advice="it is started again")
                await self._sleep(IDENTITY_RETRY_S)

    async def _session(self) -> None:
        """Run all jobs over one connection, until the end or a reconnect."""
        self.link.reconnect.clear()
        transport = self._connect(self.identity, self.address, self._settings)
        jobs = [asyncio.create_task(self._supervise(job, transport)) for job in self._jobs]
        jobs.append(asyncio.create_task(self._watch_over()))
        ends = [asyncio.create_task(event.wait()) for event in (self._stopping, self.link.reconnect)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not self._stopping.is_set():
            log.warning("reconnecting", address=self.address, reason=self.link.reconnect_reason)
        await end([*jobs, *ends])
        await transport.close()

    async def _supervise(self, job: Job, transport: Transport) -> None:
        """Run a job, and restart it after an unexpected error, which is logged."""
        while True:
            try:
                await job.run(transport, self.link)
            except Exception as error:
                log.error("job_failed", job=type(job).__name__, error=repr(error), advice="it is started again")
            await asyncio.sleep(1.0)

    async def _watch_over(self) -> None:
        """Diagnose failing calls and an expired certificate."""
        while True:
            await self.link.failed_event.wait()
            self.link.failed_event.clear()
            try:
                load_identity(self._state_dir)
                self.link.explain(await asyncio.to_thread(diagnose, self.identity, self.address))
            except CertificateError as error:
                self.link.explain(str(error))
            await asyncio.sleep(DIAGNOSE_EVERY_S)
            if self.link.status.connected:
                self.link.failed_event.clear()

    async def _sleep(self, seconds: float) -> None:
        await happens(self._stopping, seconds)

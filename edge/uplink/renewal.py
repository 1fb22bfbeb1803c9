"""Renewal of the device's certificate by the agent, before it ends.

1. The agent makes a new key and asks the service, by its present certificate, to sign it.
2. Key and certificate are written to RENEWAL_FILE, as one file.
3. A call with them shows that they work. The service takes the present certificate until then.
4. RENEWAL_FILE is renamed to RENEWED_FILE, which is the identity from then on, and the agent connects with it.

A kill before step 2 leaves the present identity, which still works. After it the next start goes on with step 3.
"""

import asyncio
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge.settings import UplinkSettings
from edge.uplink.enrolment import signing_request
from edge.uplink.identity import FOLDER, RENEWAL_FILE, RENEWED_FILE, Identity, load_identity, load_renewal
from edge.uplink.link import LinkState
from edge.uplink.transport import Connect, GrpcTransport, Transport
from shared.backoff import HALF_JITTER, Backoff
from shared.errors import CertificateError
from shared.files import synchronise_folder, write_durably
from shared.logs import EventLog, Throttle
from vedette.v1 import fleet_pb2

RENEW_SHARE = 1 / 3  # of the lifetime: renewal begins when less is left
CHECK_EVERY_S = 3600.0
FIRST_RETRY_S, LAST_RETRY_S = 5.0, 3600.0
_NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)

log = EventLog("renewal")


class CertificateRenewal:
    """Renews the certificate of the device. A job of the uplink.

    `problem` is empty, or the reason why the service did not renew a certificate that is due.
    """

    def __init__(
        self,
        state_dir: Path,
        settings: UplinkSettings,
        connect: Connect = GrpcTransport,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._state_dir, self._settings, self._connect, self._now = state_dir, settings, connect, now
        self._folder = state_dir / FOLDER
        self._backoff = Backoff(FIRST_RETRY_S, LAST_RETRY_S, jitter=HALF_JITTER)
        self._not_before_s = 0.0  # monotonic: a short certificate is always due, and must not be renewed in a loop
        self._throttle = Throttle(CHECK_EVERY_S)
        self.problem = ""

    async def run(self, transport: Transport, link: LinkState) -> None:
        """Renew when due until cancelled; see `Job.run`."""
        while True:
            await asyncio.sleep(max(0.0, self._not_before_s - time.monotonic()))
            wait_s = CHECK_EVERY_S
            try:
                if await self._renew(transport, link):
                    self._backoff.reset()
                    link.ask_reconnect("the certificate was renewed")
                self.problem = ""
            except grpc.aio.AioRpcError as error:
                wait_s = self._backoff.next_s()
                self._report(f"{error.code().name}: {error.details()}", answered=error.code() not in _NO_ANSWER)
            except (CertificateError, OSError) as error:
                wait_s = self._backoff.next_s()
                self._report(str(error), answered=True)
            self._not_before_s = time.monotonic() + wait_s

    async def _renew(self, transport: Transport, link: LinkState) -> bool:
        """Renew the certificate if it is due; return whether another one is in force."""
        running = await asyncio.to_thread(load_identity, self._state_dir)
        if not (self._folder / RENEWAL_FILE).exists():
            if not is_due(running, self._now()):
                return False
            await self._ask(transport, running)
        try:
            await self._try_renewal(link)
        except CertificateError as error:
            (self._folder / RENEWAL_FILE).unlink(missing_ok=True)
            raise CertificateError(f"the renewed certificate cannot be used ({error})") from None
        await asyncio.to_thread(_put_in_force, self._folder)
        log.info("certificate_renewed", device_id=running.device_id)
        return True

    async def _ask(self, transport: Transport, running: Identity) -> None:
        """Get a certificate for a new key, and write both."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate_pem = await transport.renew(signing_request(running.device_id, key), self._settings.deadline_s)
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self._folder / RENEWAL_FILE
        await asyncio.to_thread(write_durably, path, key_pem + certificate_pem, 0o600)

    async def _try_renewal(self, link: LinkState) -> None:
        """Make a call with the renewed certificate; raises RefusedRenewalError if the service refuses it."""
        renewed = await asyncio.to_thread(load_renewal, self._state_dir)
        trial = self._connect(renewed, link.address, self._settings)
        try:
            await trial.heartbeat(fleet_pb2.HeartbeatRequest(query_only=True), self._settings.deadline_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                raise RefusedRenewalError(error.details()) from None
            raise
        finally:
            await trial.close()

    def _report(self, reason: str, *, answered: bool) -> None:
        if answered:  # otherwise the link is down, which is reported
            self.problem = f"certificate: not renewed: {reason}"[:400]
            if self._throttle.allow(self.problem):
                log.warning("certificate_not_renewed", reason=reason, advice="the present one stays in use until then")


class RefusedRenewalError(CertificateError):
    """The service does not know the renewed certificate, such as after its restore from a backup."""


def is_due(identity: Identity, now: datetime) -> bool:
    """Return whether less than RENEW_SHARE of the certificate's lifetime is left."""
    return identity.not_after - now < RENEW_SHARE * (identity.not_after - identity.not_before)


def _put_in_force(folder: Path) -> None:
    """Replace the identity's key and certificate in one step."""
    os.replace(folder / RENEWAL_FILE, folder / RENEWED_FILE)
    synchronise_folder(folder)

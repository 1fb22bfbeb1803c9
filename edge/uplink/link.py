"""State of the connection to the service, and diagnosis of its failures."""

import asyncio
import socket
import ssl
import time

import grpc

from edge.uplink.identity import CA_FILE, Identity
from edge.uplink.tasks import happens
from shared.addresses import Address
from shared.backoff import Backoff
from shared.logs import EventLog
from shared.status import LinkStatus

PROBE_TIMEOUT_S = 5.0
NOT_CONNECTED_YET = "not connected yet"
MAX_SILENT_CALLS = 2  # calls in a row that met their deadline: the connection may be half open

log = EventLog("link")


class LinkState:
    """Connection state, as the calls find out. Written on the uplink's loop only, read from any thread."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.status = LinkStatus(since_s=time.time(), error=NOT_CONNECTED_YET)
        self.answered = asyncio.Event()
        self.failed_event = asyncio.Event()
        self.reconnect, self.reconnect_reason = asyncio.Event(), ""
        self.silence_limit_s = 0.0  # seconds without a reply before reconnecting; large requests need longer
        self._silent_calls, self._answered_at_s = 0, time.monotonic()

    def succeeded(self) -> None:
        """Note that the service answered."""
        self._silent_calls, self._answered_at_s = 0, time.monotonic()
        if not self.status.connected:
            log.info("connected", address=self.address)
            self.status = LinkStatus(connected=True, since_s=time.time())
        self.answered.set()

    def paused(self, reason: str, pause_s: float) -> None:
        """Note that the service answered, and asked to wait."""
        self.succeeded()
        self.status = self.status.model_copy(update={"pause_reason": reason, "pause_until_s": time.time() + pause_s})

    def failed(self, error: grpc.aio.AioRpcError) -> None:
        """Note a failed call."""
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._silent_calls += 1
            silent_s = time.monotonic() - self._answered_at_s
            if self._silent_calls >= MAX_SILENT_CALLS and silent_s >= self.silence_limit_s:
                self._silent_calls, self._answered_at_s = 0, time.monotonic()
                self.ask_reconnect("calls met their deadlines")
        self.answered.clear()
        if self.status.connected or not self.status.error or self.status.error == NOT_CONNECTED_YET:
            text = f"{code.name}: {details}"
            log.warning("disconnected", address=self.address, error=text, advice="samples wait in the spool")
            self.status = LinkStatus(since_s=time.time(), error=text)
        self.failed_event.set()

    def ask_reconnect(self, reason: str) -> None:
        """End the connection, and connect again with the identity on disk."""
        self.reconnect_reason = reason
        self.reconnect.set()

    def explain(self, reason: str) -> None:
        """Set a plainer reason for a missing connection."""
        if not self.status.connected and reason and reason != self.status.error:
            log.error("no_connection", address=self.address, reason=reason)
            self.status = LinkStatus(since_s=self.status.since_s, error=reason)


async def wait_to_retry(backoff: Backoff, link: LinkState) -> None:
    """Wait for the next attempt; without a connection, at most until the service answers another call."""
    if link.status.connected:
        await asyncio.sleep(backoff.next_s())
        return
    await happens(link.answered, backoff.next_s())


def diagnose(identity: Identity, address: str) -> str:
    """Find the reason of failing calls by a plain TLS connection; empty if that works. Blocks for seconds."""
    try:
        target = Address.parse(address)
        context = ssl.create_default_context(cadata=identity.ca_pem.decode())
        context.load_cert_chain(*identity.files)
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((target.host, target.port), timeout=PROBE_TIMEOUT_S) as connection,
            context.wrap_socket(connection, server_hostname=target.host) as secured,
        ):
            # With TLS 1.3 the refusal of the device's certificate arrives after the handshake.
            return "" if secured.recv(1) else _refusal(address, identity, "it hangs up after the handshake")
    except ssl.SSLCertVerificationError as error:
        return (
            f"the certificate of {address} is not trusted ({error.verify_message}): it is not the service that issued "
            f"{identity.folder / CA_FILE}, or its name or date is wrong. Check uplink.address, or enrol again."
        )
    except ssl.SSLError as error:
        return _refusal(address, identity, (error.reason or str(error)).lower().replace("_", " "))
    except socket.gaierror:
        return f"the name {target.host!r} cannot be resolved. Check uplink.address and the device's DNS."
    except ConnectionRefusedError:
        return f"nobody listens at {address}. Check uplink.address, and that vedette cloud serve runs."
    except TimeoutError:
        return f"{address} does not answer within {PROBE_TIMEOUT_S:.0f} s. Check the network and firewalls."
    except (OSError, ValueError) as error:
        return f"{address} cannot be reached ({error}). Check uplink.address and the network."


def _refusal(address: str, identity: Identity, reason: str) -> str:
    return (
        f"{address} refuses this device's certificate {identity.files[0]} ({reason}): it may be of "
        "another authority, or revoked. Look at the service's log, or enrol the device again."
    )

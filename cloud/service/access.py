"""Authentication of devices by their client certificates."""

import asyncio
import math
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
from cryptography import x509
from cryptography.x509.oid import NameOID

from cloud.limit_settings import LimitSettings
from cloud.service.metrics import Metrics
from cloud.service.rate_limit import RateLimit
from cloud.store import Store
from cloud.store.certificates import adopt_certificate
from cloud.store.fleet import Device, device, devices_by_id
from shared.errors import StorageError
from shared.logs import EventLog, Throttle

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

CACHED_S = 1.0
MAX_CACHED = 10_000
STORE_FAILED = "The service cannot read or write its store now: try again later."  # the log has the rest
_ENROL_AGAIN = "Enrol it again: vedette cloud token, then vedette edge enroll."
_LOG = EventLog("service")
_throttle = Throttle()


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Certificate of a caller, which TLS has verified; `serial` is hexadecimal."""

    device_id: str
    serial: str
    starts_at_s: float
    expires_at_s: float

    def left(self, now_s: float) -> float:
        """Return the share of its lifetime that is left, in [0, 1]."""
        return min(1.0, max(0.0, (self.expires_at_s - now_s) / (self.expires_at_s - self.starts_at_s)))


class Access:
    """Authenticates devices; a revocation, also by another process, takes effect within CACHED_S seconds."""

    def __init__(self, store: Store, limits: LimitSettings, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._calls_per_s = limits.calls_per_second_per_device
        self._rates = RateLimit(60 * self._calls_per_s, limits.burst_calls_per_device)
        self._known: dict[str, Device] = {}
        self._read_at_s = 0.0
        self._reading = asyncio.Lock()

    async def new_call(self, context: Context) -> ClientCertificate:
        """Return the caller's certificate as `certificate` does; end the call if it makes too many.

        Calls are counted before the store is read, also those of a certificate that gives no access any more; each
        certificate has its own count, so that an old one cannot shut out its device.
        """
        used = await self._presented(context)
        if (wait_s := self._rates.wait_s(used.serial)) > 0:
            self._metrics.refused_requests.labels("rate").inc()
            message = f"Device {used.device_id!r} makes over {self._calls_per_s:g} calls a second: try again later."
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            await refuse(context, code, message, retry_after_ms=math.ceil(1000 * wait_s))
        if not self._is_current(used):
            await self.check(context, used.device_id, used.serial)
        return used

    def _is_current(self, used: ClientCertificate) -> bool:
        """Return whether the certificate gives access by the row of its device, read within CACHED_S."""
        known = self._known.get(used.device_id)
        is_recent = time.monotonic() - self._read_at_s < CACHED_S
        return is_recent and not _reason(used.device_id, known, used.serial)

    async def device_id(self, context: Context) -> str:
        """Return the caller's device id; end the call with a status if the device has no access."""
        return (await self.certificate(context)).device_id

    async def certificate(self, context: Context) -> ClientCertificate:
        """Return the caller's certificate; end the call with a status if the device has no access."""
        used = await self._presented(context)
        await self.check(context, used.device_id, used.serial)
        return used

    async def _presented(self, context: Context) -> ClientCertificate:
        """Return the caller's certificate without a look at the store; end the call if there is none in force."""
        pems: Iterable[bytes] = context.auth_context().get("x509_pem_cert", ())
        pem = next(iter(pems), b"")
        if not pem:
            await refuse(context, grpc.StatusCode.UNAUTHENTICATED, "A client certificate is needed. " + _ENROL_AGAIN)
        used = _read(bytes(pem))
        if time.time() > used.expires_at_s:  # TLS looks at it only when the connection is made
            await refuse(context, grpc.StatusCode.UNAUTHENTICATED, "The certificate has expired. " + _ENROL_AGAIN)
        return used

    async def lost(self, used: Collection[ClientCertificate]) -> set[ClientCertificate]:
        """Return the certificates that probably give no access any more: one query for all; raises StorageError."""
        await self._refresh()
        now_s, known = time.time(), self._known
        return {
            item
            for item in used
            if now_s > item.expires_at_s or _reason(item.device_id, known.get(item.device_id), item.serial)
        }

    async def check(self, context: Context, device_id: str, serial: str | None = None) -> None:
        """End the call unless the device is enrolled, not revoked, and uses its newest certificate.

        The first use of a renewed certificate makes it the newest, and the one before invalid.
        """
        try:
            reason = _reason(device_id, await self._look_up(device_id), serial)
            if reason:  # perhaps enrolled again, or renewed, a moment ago
                reason = await self._look_again(device_id, serial)
        except StorageError as error:
            await refuse_for_store(context, error)
        if reason:
            await refuse(context, grpc.StatusCode.PERMISSION_DENIED, reason)

    async def _look_again(self, device_id: str, serial: str | None) -> str:
        """Return why the device has no access by the store itself; adopt a renewed certificate."""
        known = await device(self._store, device_id)
        if known is not None and serial is not None and known.next_certificate_serial == serial:
            await adopt_certificate(self._store, device_id, serial)
            known = await device(self._store, device_id)
        if known is not None:
            self._known[device_id] = known
        return _reason(device_id, known, serial)

    async def _look_up(self, device_id: str) -> Device | None:
        await self._refresh()
        known = self._known.get(device_id)
        # Only known devices are cached: one that has just enrolled must not wait.
        if known is None and (known := await device(self._store, device_id)) is not None:
            self._known[device_id] = known
        return known

    async def _refresh(self) -> None:
        """Read all known devices again after CACHED_S: one query, however many streams are open."""
        if time.monotonic() - self._read_at_s < CACHED_S:
            return
        async with self._reading:
            if (now_s := time.monotonic()) - self._read_at_s >= CACHED_S:
                asked = list(self._known)[-MAX_CACHED:]
                self._known = await devices_by_id(self._store, asked)
                self._read_at_s = now_s


async def refuse(
    context: Context,
    code: grpc.StatusCode,
    message: str,
    *,
    retry_after_ms: int | None = None,
) -> NoReturn:
    """End the call with a status; `retry_after_ms` is the pause for gRPC's own retry policy."""
    metadata = (("grpc-retry-pushback-ms", str(retry_after_ms)),) if retry_after_ms is not None else ()
    await context.abort(code, message, metadata)
    raise AssertionError("abort returned")


async def refuse_for_store(context: Context, error: StorageError, *, retry_after_ms: int | None = None) -> NoReturn:
    """End the call because the store failed; the error, which may name paths and servers, goes into the log only."""
    if count := _throttle.allow("store"):
        _LOG.error("call_without_store", error=error, count=count)
    await refuse(context, grpc.StatusCode.UNAVAILABLE, STORE_FAILED, retry_after_ms=retry_after_ms)


def _reason(device_id: str, known: Device | None, serial: str | None) -> str:
    """Return why a device has no access with a certificate of this serial number, or an empty text."""
    if known is None:
        return f"Device {device_id!r} is not enrolled here. {_ENROL_AGAIN}"
    if known.revoked_at_s is not None:
        return f"Device {device_id!r} was revoked. {_ENROL_AGAIN}"
    if serial is not None and known.certificate_serial != serial:
        return f"Device {device_id!r} was enrolled again after this certificate was made. Use the newer one."
    return ""


@lru_cache(maxsize=4096)
def _read(pem: bytes) -> ClientCertificate:
    """Return the facts of a certificate that TLS has verified."""
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    device_id = str(names[0].value) if names else ""
    starts_at_s, expires_at_s = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    serial = f"{certificate.serial_number:x}"
    return ClientCertificate(device_id, serial, starts_at_s.timestamp(), expires_at_s.timestamp())

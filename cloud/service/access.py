"""Authentication of devices by their client certificates."""

import asyncio
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
from cryptography import x509
from cryptography.x509.oid import NameOID

from cloud.store import Store
from cloud.store.fleet import Device, device, devices_by_id
from shared.errors import StorageError

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

CACHED_S = 1.0
MAX_CACHED = 10_000
_ENROL_AGAIN = "Enrol it again: vedette cloud token, then vedette edge enroll."


class Access:
    """Authenticates devices; a revocation, also by another process, takes effect within CACHED_S seconds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Device] = {}
        self._read_at_s = 0.0
        self._reading = asyncio.Lock()

    async def device_id(self, context: Context) -> str:
        """Return the caller's device id; end the call with a status if the device has no access."""
        pems: Iterable[bytes] = context.auth_context().get("x509_pem_cert", ())
        pem = next(iter(pems), b"")
        if not pem:
            await refuse(context, grpc.StatusCode.UNAUTHENTICATED, "A client certificate is needed. " + _ENROL_AGAIN)
        device_id, serial, expires_at_s = _subject(bytes(pem))
        if time.time() > expires_at_s:  # TLS looks at it only when the connection is made
            await refuse(context, grpc.StatusCode.UNAUTHENTICATED, "The certificate has expired. " + _ENROL_AGAIN)
        await self.check(context, device_id, serial)
        return device_id

    async def check(self, context: Context, device_id: str, serial: str | None = None) -> None:
        """End the call unless the device is enrolled, not revoked, and uses its newest certificate."""
        try:
            reason = _reason(device_id, await self._look_up(device_id), serial)
            if reason:  # perhaps enrolled again a moment ago
                reason = _reason(device_id, await device(self._store, device_id), serial)
        except StorageError as error:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, str(error))
        if reason:
            await refuse(context, grpc.StatusCode.PERMISSION_DENIED, reason)

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
def _subject(pem: bytes) -> tuple[str, str, float]:
    """Return device id, hexadecimal serial number and time of expiry of a certificate that TLS has verified."""
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    device_id = str(names[0].value) if names else ""
    return device_id, f"{certificate.serial_number:x}", certificate.not_valid_after_utc.timestamp()

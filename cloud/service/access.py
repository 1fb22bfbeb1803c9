"""Authentication of devices by their client certificates."""

import time
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
from cryptography import x509
from cryptography.x509.oid import NameOID

from cloud.store import Store
from cloud.store.fleet import Device, device
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
        self._known: dict[str, tuple[float, Device | None]] = {}

    async def device_id(self, context: Context) -> str:
        """Return the caller's device id; end the call with a status if the device has no access."""
        pems: Iterable[bytes] = context.auth_context().get("x509_pem_cert", ())
        pem = next(iter(pems), b"")
        if not pem:
            await refuse(context, grpc.StatusCode.UNAUTHENTICATED, "A client certificate is needed. " + _ENROL_AGAIN)
        device_id, serial = _subject(bytes(pem))
        await self.check(context, device_id, serial)
        return device_id

    async def check(self, context: Context, device_id: str, serial: str | None = None) -> None:
        """End the call unless the device is enrolled, not revoked, and uses its newest certificate."""
        try:
            known = await self._look_up(device_id)
        except StorageError as error:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, str(error))
        if known is None:
            message = f"Device {device_id!r} is not enrolled here. {_ENROL_AGAIN}"
        elif known.revoked_at_s is not None:
            message = f"Device {device_id!r} was revoked. {_ENROL_AGAIN}"
        elif serial is not None and known.certificate_serial != serial:
            message = f"Device {device_id!r} was enrolled again after this certificate was made. Use the newer one."
        else:
            return
        await refuse(context, grpc.StatusCode.PERMISSION_DENIED, message)

    async def _look_up(self, device_id: str) -> Device | None:
        now_s = time.monotonic()
        at_s, known = self._known.get(device_id, (-CACHED_S, None))
        # Only known devices are cached: one that has just enrolled must not wait.
        if known is None or now_s - at_s >= CACHED_S:
            known = await device(self._store, device_id)
            if len(self._known) >= MAX_CACHED:
                self._known.clear()
            self._known[device_id] = (now_s, known)
        return known


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


@lru_cache(maxsize=4096)
def _subject(pem: bytes) -> tuple[str, str]:
    """Return device id and hexadecimal serial number of a certificate that TLS has verified."""
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else "", f"{certificate.serial_number:x}"

"""`vedette.v1.Fleet`: heartbeats, bundles and live views of enrolled devices; enrolment on a separate port."""

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NoReturn

import grpc

from cloud.service.access import Access, Context, refuse, refuse_for_store
from cloud.service.authority import Authority
from cloud.service.bundle_rules import is_id
from cloud.service.heartbeats import bounded, with_clock_warning
from cloud.service.live_views import DeviceLiveViews
from cloud.service.metrics import Metrics
from cloud.service.rate_limit import RateLimit, address_of
from cloud.store import Store
from cloud.store.certificates import offer_certificate
from cloud.store.fleet import device_of_token, spend_token, store_heartbeat
from cloud.store.key_sets import KeyChain
from cloud.store.near_copies import store_near_copies
from cloud.store.registry import RegisteredBundle, Registry
from cloud.store.releases import Releases
from shared.enrolment import MAX_TOKEN_CHARACTERS
from shared.errors import EnrolmentError, StorageError
from shared.key_sets import KeySet
from shared.logs import EventLog, Throttle
from shared.signing_keys import public_pem
from vedette.v1 import fleet_pb2, fleet_pb2_grpc

CHUNK_BYTES = 256 * 1024
MAX_KEY_SETS = 8  # in one answer; the next one brings the rest
STORAGE_RETRY_MS = 2000
RENEWALS_PER_MINUTE = 6  # of one device
RENEWABLE_SHARE = 0.5  # of the lifetime of a certificate; devices ask in the last third
_LOG = EventLog("fleet")


class FleetService(fleet_pb2_grpc.FleetServicer):
    """Heartbeat, Renew, FetchBundle and AnswerLiveView for devices with a certificate."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        access: Access,
        metrics: Metrics,
        *,
        authority: Authority,
        live_views: DeviceLiveViews,
        certificate_days: float,
        heartbeat_s: int,
        fetches_per_device: int,
    ) -> None:
        self._store, self._live_views = store, live_views
        self._authority, self._certificate_days = authority, certificate_days
        self._renewals = RateLimit(RENEWALS_PER_MINUTE, RENEWALS_PER_MINUTE)
        self._registry = registry
        self._releases = Releases()
        self._access = access
        self._metrics = metrics
        self._heartbeat_s = heartbeat_s
        self._fetches_per_device = fetches_per_device
        self._fetches: dict[str, int] = {}
        self._throttle = Throttle(max_kinds=10_000)

    async def Enroll(self, request: fleet_pb2.EnrollRequest, context: Context) -> fleet_pb2.EnrollResponse:
        """Refuse: callers of this port are enrolled already."""
        await refuse(context, grpc.StatusCode.UNIMPLEMENTED, "Enrolment uses another port, which the token names.")

    async def Heartbeat(self, request: fleet_pb2.HeartbeatRequest, context: Context) -> fleet_pb2.HeartbeatResponse:
        """Store the heartbeat unless it is a query only; answer with the desired state of the device."""
        received_at_s = time.time()
        device_id = (await self._access.new_call(context)).device_id
        heartbeat = bounded(request)
        offset_s = heartbeat.sent_at_ms / 1000 - received_at_s if heartbeat.sent_at_ms else None
        heartbeat = with_clock_warning(heartbeat, offset_s)
        try:
            if not request.query_only:
                await store_heartbeat(self._store, device_id, heartbeat, offset_s)
                await store_near_copies(self._store, device_id, heartbeat.near_copies)
            async with self._store.reading() as connection:
                wanted, settings = await self._releases.wanted(connection, device_id)
            chain = await self._registry.key_chain.sets(self._authority.sha256)
        except StorageError as error:
            await refuse_for_store(context, error, retry_after_ms=STORAGE_RETRY_MS)
        self._metrics.heartbeats.inc()
        return fleet_pb2.HeartbeatResponse(
            desired=[_desired(bundle) for bundle in wanted],
            next_heartbeat_s=self._heartbeat_s,
            service_time_ms=int(time.time() * 1000),
            key_sets=[item.to_message() for item in _following(chain, heartbeat.key_set_sha256)],
            settings=settings.to_message(),
        )

    async def Renew(self, request: fleet_pb2.RenewRequest, context: Context) -> fleet_pb2.RenewResponse:
        """Issue another certificate for the caller, who keeps the present one until the new one is used."""
        used = await self._access.new_call(context)
        if (wait_s := self._renewals.wait_s(used.device_id)) > 0:
            message = "Too many renewals of this device: try again later."
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            await refuse(context, code, message, retry_after_ms=math.ceil(1000 * wait_s))
        if used.left(time.time()) > RENEWABLE_SHARE:  # each renewal takes an entry of the audit log
            message = "The certificate is too new to be renewed: over half of its lifetime is left."
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, message)
        try:
            sign, days = self._authority.sign_device, self._certificate_days
            made = await asyncio.to_thread(sign, request.certificate_signing_request, used.device_id, days)
            await offer_certificate(self._store, used.device_id, used.serial, made.serial, made.expires_at_s)
        except EnrolmentError as error:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except StorageError as error:
            await refuse_for_store(context, error, retry_after_ms=STORAGE_RETRY_MS)
        _LOG.info("certificate_renewed", device_id=used.device_id, serial=made.serial)
        return fleet_pb2.RenewResponse(certificate_pem=made.pem)

    async def FetchBundle(
        self, request: fleet_pb2.FetchBundleRequest, context: Context
    ) -> AsyncIterator[fleet_pb2.Chunk]:
        """Stream the archive of a bundle that the device should run, without `cloud/`, from the offset to its end."""
        device_id = (await self._access.new_call(context)).device_id
        if self._fetches.get(device_id, 0) >= self._fetches_per_device:
            message = f"Device {device_id!r} fetches {self._fetches_per_device} bundles already."
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, message, retry_after_ms=STORAGE_RETRY_MS)
        self._fetches[device_id] = self._fetches.get(device_id, 0) + 1
        try:
            async for chunk in self._chunks(device_id, request, context):
                yield chunk
        finally:
            self._fetches[device_id] -= 1
            if not self._fetches[device_id]:
                del self._fetches[device_id]

    async def AnswerLiveView(
        self, request: fleet_pb2.AnswerLiveViewRequest, context: Context
    ) -> fleet_pb2.AnswerLiveViewResponse:
        """Show a sample to the person who asked for it; refuse one that nobody asked this device for."""
        used = await self._access.new_call(context)
        await self._live_views.answer(used.device_id, request, context)
        return fleet_pb2.AnswerLiveViewResponse()

    async def _chunks(
        self, device_id: str, request: fleet_pb2.FetchBundleRequest, context: Context
    ) -> AsyncIterator[fleet_pb2.Chunk]:
        entry = await self._fetchable(device_id, request.bundle_id, context)
        if request.offset > entry.edge_archive_bytes:
            message = f"Offset {request.offset} lies beyond the {entry.edge_archive_bytes} bytes of {entry.bundle_id}."
            await refuse(context, grpc.StatusCode.OUT_OF_RANGE, message)
        if count := self._throttle.allow(f"fetched {device_id}"):
            facts = {"bundle": entry.bundle_id, "offset": request.offset, "count": count}
            _LOG.info("bundle_fetched", device_id=device_id, **facts)
        path, offset = await self._edge_archive(entry, context), request.offset
        while offset < entry.edge_archive_bytes:
            try:
                data = await asyncio.to_thread(_read_at, path, offset)
            except OSError as error:
                data = b""
                if count := self._throttle.allow(f"unreadable {entry.bundle_id}"):
                    _LOG.error("bundle_unreadable", bundle=entry.bundle_id, error=error, count=count)
            if not data:
                message = f"The archive of {entry.bundle_id} is damaged in the registry: publish it again."
                await refuse(context, grpc.StatusCode.DATA_LOSS, message)
            await self._access.device_id(context)  # ends for a device that was revoked, or whose certificate expired
            yield fleet_pb2.Chunk(offset=offset, data=data)
            offset += len(data)

    async def _edge_archive(self, entry: RegisteredBundle, context: Context) -> Path:
        try:
            return await self._registry.edge_archive(entry.bundle_id)
        except StorageError as error:
            await refuse_for_store(context, error, retry_after_ms=STORAGE_RETRY_MS)

    async def _fetchable(self, device_id: str, bundle_id: str, context: Context) -> RegisteredBundle:
        """Return the bundle; end the call if there is none that the device may fetch."""
        try:
            entry = await self._registry.entry(bundle_id) if is_id(bundle_id) else None
            async with self._store.reading() as connection:
                if entry is not None and not await self._releases.may_fetch(connection, device_id, entry):
                    entry = None
        except StorageError as error:
            await refuse_for_store(context, error, retry_after_ms=STORAGE_RETRY_MS)
        if entry is None:
            message = f"No bundle {bundle_id[:128]!r} for this device: a heartbeat names the current one."
            await refuse(context, grpc.StatusCode.NOT_FOUND, message)
        return entry


class EnrolmentService(fleet_pb2_grpc.FleetServicer):
    """Enroll for devices with a token and no certificate yet; refuses all other calls."""

    def __init__(
        self,
        store: Store,
        authority: Authority,
        key_chain: KeyChain,
        metrics: Metrics,
        *,
        attempts_per_minute: int,
        certificate_days: float,
    ) -> None:
        self._certificate_days = certificate_days
        self._attempts = RateLimit(attempts_per_minute, attempts_per_minute)
        self._store = store
        self._authority = authority
        self._key_chain = key_chain
        self._metrics = metrics
        self._throttle = Throttle()

    async def Enroll(self, request: fleet_pb2.EnrollRequest, context: Context) -> fleet_pb2.EnrollResponse:
        """Spend the token; sign the key in the request for the token's device."""
        secret, address = request.token, address_of(context.peer())
        if (wait_s := self._attempts.wait_s(address)) > 0:
            self._metrics.refused_requests.labels("enrolment_rate").inc()
            message = "Too many enrolments failed from this address: try again later."
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            await refuse(context, code, message, retry_after_ms=math.ceil(1000 * wait_s))
        if not 0 < len(secret) <= MAX_TOKEN_CHARACTERS:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "No token: make one with vedette cloud token.")
        try:
            answer = await self._enroll(secret, request.certificate_signing_request)
        except EnrolmentError as error:
            self._metrics.refused_requests.labels("enrolment").inc()
            if count := self._throttle.allow(address):
                _LOG.warning("enrolment_refused", address=address, reason=error, count=count)
            await refuse(context, grpc.StatusCode.PERMISSION_DENIED, str(error))
        except StorageError as error:
            await refuse_for_store(context, error, retry_after_ms=STORAGE_RETRY_MS)
        self._attempts.give_back(address)
        return answer

    async def Heartbeat(self, request: fleet_pb2.HeartbeatRequest, context: Context) -> fleet_pb2.HeartbeatResponse:
        """Refuse: this call needs a certificate."""
        await _needs_certificate(context)

    async def Renew(self, request: fleet_pb2.RenewRequest, context: Context) -> fleet_pb2.RenewResponse:
        """Refuse: this call needs a certificate."""
        await _needs_certificate(context)

    async def FetchBundle(
        self, request: fleet_pb2.FetchBundleRequest, context: Context
    ) -> AsyncIterator[fleet_pb2.Chunk]:
        """Refuse: this call needs a certificate."""
        await _needs_certificate(context)
        yield fleet_pb2.Chunk()

    async def AnswerLiveView(
        self, request: fleet_pb2.AnswerLiveViewRequest, context: Context
    ) -> fleet_pb2.AnswerLiveViewResponse:
        """Refuse: this call needs a certificate."""
        await _needs_certificate(context)

    async def _enroll(self, secret: str, request_pem: bytes) -> fleet_pb2.EnrollResponse:
        now_s = time.time()
        async with self._store.reading() as connection:  # an unknown token costs neither a transaction nor key work
            device_id = await device_of_token(connection, secret, now_s)
        newest = (await self._key_chain.sets(self._authority.sha256))[-1]
        sign, days = self._authority.sign_device, self._certificate_days
        certificate = await asyncio.to_thread(sign, request_pem, device_id, days)
        async with self._store.writing() as connection:  # of two calls that spend one token, the second is refused
            await spend_token(connection, secret, certificate.serial, certificate.expires_at_s, now_s)
        _LOG.info("device_enrolled", device_id=device_id, serial=certificate.serial)
        return fleet_pb2.EnrollResponse(
            device_id=device_id,
            certificate_pem=certificate.pem,
            ca_certificate_pem=self._authority.certificate_pem,
            bundle_key_pem=public_pem(newest.public_keys[0]),
            key_set=newest.to_message(),
        )


async def _needs_certificate(context: Context) -> NoReturn:
    message = "This is the enrolment port: enrolled devices use the device port, with their certificate."
    await refuse(context, grpc.StatusCode.UNAUTHENTICATED, message)


def _following(chain: Sequence[KeySet], sha256: str) -> Sequence[KeySet]:
    """Return the sets after the one in force on a device; none for a device whose set is not in the chain."""
    position = next((index for index, item in enumerate(chain) if item.sha256 == sha256), len(chain))
    return chain[position + 1 :][:MAX_KEY_SETS]


def _desired(bundle: RegisteredBundle) -> fleet_pb2.DesiredBundle:
    return fleet_pb2.DesiredBundle(
        bundle_name=bundle.name,
        bundle_id=bundle.bundle_id,
        archive_bytes=bundle.edge_archive_bytes,
        archive_sha256=bytes.fromhex(bundle.edge_archive_sha256),
    )


def _read_at(path: Path, offset: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, CHUNK_BYTES, offset)
    finally:
        os.close(descriptor)

"""Bundles that the service wants the device to run, fetched into memory to compare sources with them."""

from collections.abc import Iterable

import grpc

from edge.bundles.cache import BundleCache
from edge.settings.sources import SourceSettings
from edge.uplink.identity import Identity
from shared.bundle import MAX_ARCHIVE_BYTES, Bundle
from shared.errors import BundleError
from shared.wire import MAX_MESSAGE_BYTES
from vedette.v1 import fleet_pb2, fleet_pb2_grpc

FETCH_TIMEOUT_S = 60.0  # for one bundle


class PublishedBundles:
    """Bundles in an answer of the service. Nothing is kept on disk."""

    def __init__(self, identity: Identity, address: str, desired: Iterable[fleet_pb2.DesiredBundle]) -> None:
        self._identity, self._address = identity, address
        self._desired = {item.bundle_name: item for item in desired}
        self._fetched: dict[str, tuple[Bundle | None, str]] = {}

    @property
    def names(self) -> frozenset[str]:
        """Names of the bundles."""
        return frozenset(self._desired)

    def fetched(self, name: str) -> tuple[Bundle | None, str]:
        """Return the verified bundle, or None and the reason why it is not there, empty if it was not fetched."""
        return self._fetched.get(name, (None, ""))

    def fetch_missing(self, sources: Iterable[SourceSettings], cache: BundleCache) -> None:
        """Fetch the bundle of each source that follows a name and has none yet."""
        for source in sources:
            name = source.bundle_name
            if name is None or source.bundle is not None or name in self._fetched or name not in self._desired:
                continue
            if cache.current(name) is None:
                self._fetched[name] = self._fetch(self._desired[name], cache)

    def _fetch(self, desired: fleet_pb2.DesiredBundle, cache: BundleCache) -> tuple[Bundle | None, str]:
        try:
            bundle = cache.verify(desired.bundle_id, self._download(desired), desired.archive_sha256)
        except BundleError as problem:
            return None, str(problem)
        except grpc.RpcError as problem:
            return None, f"it could not be fetched for this check ({problem.details()})"
        return bundle, ""

    def _download(self, desired: fleet_pb2.DesiredBundle) -> bytes:
        """Return the archive; raises BundleError for an impossible size, or RpcError."""
        if not 0 < desired.archive_bytes <= MAX_ARCHIVE_BYTES:
            raise BundleError(f"{desired.bundle_id}: announced with {desired.archive_bytes} bytes.")
        data = bytearray()
        with open_channel(self._identity, self._address) as channel:
            request = fleet_pb2.FetchBundleRequest(bundle_id=desired.bundle_id)
            for chunk in fleet_pb2_grpc.FleetStub(channel).FetchBundle(request, timeout=FETCH_TIMEOUT_S):
                data += chunk.data
                if len(data) > desired.archive_bytes:
                    break
        return bytes(data)


def open_channel(identity: Identity, address: str) -> grpc.Channel:
    """Open a channel with mutual TLS; it connects at the first call."""
    credentials = grpc.ssl_channel_credentials(identity.ca_pem, identity.key_pem, identity.certificate_pem)
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
    return grpc.secure_channel(address, credentials, options=options)

"""Transport to the service: six calls behind one interface, over gRPC except in tests.

Every call of any transport raises grpc.aio.AioRpcError when it fails, with a status code.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from edge.settings import UplinkSettings
from edge.uplink.identity import Identity
from shared.wire import MAX_MESSAGE_BYTES
from vedette.v1 import detection_pb2, detection_pb2_grpc, fleet_pb2, fleet_pb2_grpc

M = TypeVar("M", bound=Message)
M_co = TypeVar("M_co", bound=Message, covariant=True)
_SUBMIT = "/vedette.v1.Detection/Submit"


class Stream(Protocol[M_co]):
    """Stream of messages from the service."""

    async def read(self) -> M_co | None:
        """Return the next message, None at the end."""
        ...

    def cancel(self) -> object:
        """End the stream."""
        ...


class Transport(Protocol):
    """Connection to the service. Its methods MUST be called on the loop that opened it, and raise AioRpcError."""

    async def submit(self, samples: Sequence[bytes], timeout_s: float) -> detection_pb2.SubmitResponse:
        """Submit samples as serialised messages."""
        ...

    async def heartbeat(self, request: fleet_pb2.HeartbeatRequest, timeout_s: float) -> fleet_pb2.HeartbeatResponse:
        """Send a heartbeat; the response contains the desired bundles."""
        ...

    async def renew(self, request_pem: bytes, timeout_s: float) -> bytes:
        """Return the certificate for the key in a signing request, as PEM."""
        ...

    async def answer_live_view(self, request: fleet_pb2.AnswerLiveViewRequest, timeout_s: float) -> None:
        """Send a sample for the person who asked for it, or a refusal."""
        ...

    def watch(self, cursor: int) -> Stream[detection_pb2.Event]:
        """Stream all events after `cursor`, and new ones."""
        ...

    def fetch(self, bundle_id: str, offset: int) -> Stream[fleet_pb2.Chunk]:
        """Stream the archive of a bundle from `offset`."""
        ...

    async def close(self) -> None:
        """End all calls."""
        ...


class Connect(Protocol):
    """Opens a transport; it may connect only at its first call, and MUST NOT fail before."""

    def __call__(self, identity: Identity, address: str, settings: UplinkSettings) -> Transport:
        """Connect as `identity` to `address` (host:port)."""
        ...


class GrpcTransport:
    """Transport over a gRPC channel with mutual TLS."""

    def __init__(self, identity: Identity, address: str, settings: UplinkSettings) -> None:
        self._channel = open_channel(identity, address, settings)
        self._detection = detection_pb2_grpc.DetectionStub(self._channel)
        self._fleet = fleet_pb2_grpc.FleetStub(self._channel)
        # Called by name, because the samples of the spool are serialised already.
        self._submit: grpc.aio.UnaryUnaryMultiCallable[Sequence[bytes], detection_pb2.SubmitResponse]
        self._submit = self._channel.unary_unary(
            _SUBMIT,
            request_serializer=join_samples,
            response_deserializer=detection_pb2.SubmitResponse.FromString,
        )

    async def submit(self, samples: Sequence[bytes], timeout_s: float) -> detection_pb2.SubmitResponse:
        """See `Transport`."""
        return await self._submit(samples, timeout=timeout_s)

    async def heartbeat(self, request: fleet_pb2.HeartbeatRequest, timeout_s: float) -> fleet_pb2.HeartbeatResponse:
        """See `Transport`."""
        response: fleet_pb2.HeartbeatResponse = await self._fleet.Heartbeat(request, timeout=timeout_s)
        return response

    async def renew(self, request_pem: bytes, timeout_s: float) -> bytes:
        """See `Transport`."""
        request = fleet_pb2.RenewRequest(certificate_signing_request=request_pem)
        response: fleet_pb2.RenewResponse = await self._fleet.Renew(request, timeout=timeout_s)
        return response.certificate_pem

    async def answer_live_view(self, request: fleet_pb2.AnswerLiveViewRequest, timeout_s: float) -> None:
        """See `Transport`."""
        await self._fleet.AnswerLiveView(request, timeout=timeout_s)

    def watch(self, cursor: int) -> Stream[detection_pb2.Event]:
        """See `Transport`."""
        call = self._detection.Watch(detection_pb2.WatchRequest(cursor=cursor, answers_live_views=True))
        return _GrpcStream(call, detection_pb2.Event)

    def fetch(self, bundle_id: str, offset: int) -> Stream[fleet_pb2.Chunk]:
        """See `Transport`."""
        request = fleet_pb2.FetchBundleRequest(bundle_id=bundle_id, offset=offset)
        return _GrpcStream(self._fleet.FetchBundle(request), fleet_pb2.Chunk)

    async def close(self) -> None:
        """See `Transport`."""
        await self._channel.close(grace=None)


class _GrpcStream(Stream[M]):
    def __init__(self, call: "grpc.aio.UnaryStreamCall[Any, M]", kind: type[M]) -> None:
        self._call, self._kind = call, kind

    async def read(self) -> M | None:
        message = await self._call.read()
        return message if isinstance(message, self._kind) else None  # else the end marker

    def cancel(self) -> object:
        return self._call.cancel()


def open_channel(identity: Identity, address: str, settings: UplinkSettings) -> grpc.aio.Channel:
    """Open a channel with mutual TLS on the running loop; it connects at the first call."""
    credentials = grpc.ssl_channel_credentials(identity.ca_pem, identity.key_pem, identity.certificate_pem)
    options = [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.initial_reconnect_backoff_ms", int(settings.backoff_initial_s * 1000)),
        ("grpc.min_reconnect_backoff_ms", int(settings.backoff_initial_s * 1000)),
        ("grpc.max_reconnect_backoff_ms", int(settings.backoff_max_s * 1000)),
        ("grpc.use_local_subchannel_pool", 1),  # a new channel means a new connection
        ("grpc.enable_http_proxy", 0),
    ]
    return grpc.aio.secure_channel(address, credentials, options=options)


def join_samples(samples: Sequence[bytes]) -> bytes:
    """Return a serialised SubmitRequest of serialised samples: each is field 1, length-delimited."""
    parts = []
    for data in samples:
        parts += [b"\x0a", _varint(len(data)), data]
    return b"".join(parts)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)

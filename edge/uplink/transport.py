"""How the agent speaks to the cloud: four calls behind one contract, over gRPC unless a test brings another.

Every call raises grpc.aio.AioRpcError when it fails, whatever the transport: its code says why.
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
    """Messages of the service, one after the other."""

    async def read(self) -> M_co | None:
        """The next one; None at the end."""
        ...

    def cancel(self) -> object:
        """No more is wanted."""
        ...


class Transport(Protocol):
    """A connection. Its methods MUST be called on the loop that opened it, and raise AioRpcError."""

    async def submit(self, samples: Sequence[bytes], timeout_s: float) -> detection_pb2.SubmitResponse:
        """Hand over samples, as their serialised messages."""
        ...

    async def heartbeat(self, request: fleet_pb2.HeartbeatRequest, timeout_s: float) -> fleet_pb2.HeartbeatResponse:
        """Report, and hear what is wanted."""
        ...

    def watch(self, cursor: int) -> Stream[detection_pb2.Event]:
        """All events after `cursor`, and those to come."""
        ...

    def fetch(self, bundle_id: str, offset: int) -> Stream[fleet_pb2.Chunk]:
        """The archive of a bundle from `offset` on."""
        ...

    async def close(self) -> None:
        """End all calls."""
        ...


class Connect(Protocol):
    """Opens a transport; it may connect only at its first call, and MUST NOT fail before."""

    def __call__(self, identity: Identity, address: str, settings: UplinkSettings) -> Transport:
        """As `identity`, to host:port."""
        ...


class GrpcTransport:
    """A channel with mutual TLS."""

    def __init__(self, identity: Identity, address: str, settings: UplinkSettings) -> None:
        self._channel = open_channel(identity, address, settings)
        self._detection = detection_pb2_grpc.DetectionStub(self._channel)
        self._fleet = fleet_pb2_grpc.FleetStub(self._channel)
        # By its name, with a serialiser that joins: the samples lie serialised in the spool.
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

    def watch(self, cursor: int) -> Stream[detection_pb2.Event]:
        """See `Transport`."""
        call = self._detection.Watch(detection_pb2.WatchRequest(cursor=cursor))
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
        return message if isinstance(message, self._kind) else None  # else it is the mark of the end

    def cancel(self) -> object:
        return self._call.cancel()


def open_channel(identity: Identity, address: str, settings: UplinkSettings) -> grpc.aio.Channel:
    """A channel with mutual TLS; it connects at the first call. Call it on the loop that uses the channel."""
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
    """A serialised SubmitRequest of serialised samples, without parsing them: field 1, length-delimited, each."""
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

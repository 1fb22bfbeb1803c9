"""Listening sockets of the service, with one clear error for a port in use."""

import errno
import socket
from collections.abc import Sequence

import grpc
import grpc.aio

from cloud.service.small_calls import SmallCalls
from shared.addresses import Address
from shared.errors import PortInUseError, SettingsError
from shared.wire import MAX_MESSAGE_BYTES

HANDSHAKE_MS = 10_000  # until TLS and the first frame of HTTP/2 have come
_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.so_reuseport", 0),  # otherwise a second service would silently share the port
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),  # devices behind bad links ping often
    # Without these, megabytes of each unread request arrive: a request is read only if there is room for it.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 64 * 1024),
    ("grpc.max_connection_idle_ms", 300_000),  # agents follow their events, so their connections are not idle
    ("grpc.max_concurrent_streams", 64),  # of one connection; more wait in the device
)


def grpc_server(max_receive_bytes: int, max_connections: int) -> grpc.aio.Server:
    """Return a server without services and ports; it closes connections beyond `max_connections` at once."""
    options = [
        *_OPTIONS,
        ("grpc.max_receive_message_length", max_receive_bytes),
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
    ]
    return grpc.aio.server(options=options, interceptors=[SmallCalls()])


def listen_grpc(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials, key: str) -> str:
    """Listen on `address`, the value of the setting `key`; return it with the actual port."""
    listen = Address.parse(address)
    if listen.port:
        probe(listen, key).close()
    try:
        taken = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise PortInUseError(_in_use(address, key, str(error))) from None
    return str(Address(listen.host, taken))


def probe(address: Address, key: str) -> socket.socket:
    """Return a socket bound to the address.

    Raises PortInUseError if the port is in use, SettingsError if the address is not one of this host.
    """
    try:
        family, _, _, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _cannot_listen(str(address), key, error) from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(_in_use(str(address), key, error.strerror or "")) from None
        raise _cannot_listen(str(address), key, error) from None
    return bound


def _cannot_listen(address: str, key: str, error: OSError) -> SettingsError:
    return SettingsError(f"{key} = {address!r}: cannot listen there ({error}). Name an address of this host.")


def _in_use(address: str, key: str, detail: str) -> str:
    return f"{address}: another process listens there ({detail}). End it, or set {key} to another port (0: a free one)."

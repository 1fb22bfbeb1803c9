"""Bound of the connections from one address; gRPC itself bounds only those of all addresses together.

Idle connections make no calls, so no handler sees them. This process owns their sockets: a regular look at them finds
the addresses with too many, and shuts down the newest ones.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator

from cloud.service.rate_limit import address_of
from shared.logs import EventLog, Throttle

CHECK_EVERY_S = 1.0
_FILES = "/proc/self/fd"
_LOG = EventLog("service")


class ConnectionLimit:
    """Regular check of the connections to some ports; without /proc it does nothing.

    `limits`: largest number of connections from one address, by local port. `on_closed` is called for each connection
    that was shut down.
    """

    def __init__(self, limits: dict[int, int], on_closed: Callable[[], None]) -> None:
        self._limits, self._on_closed = limits, on_closed
        self._first_seen: dict[tuple[object, ...], int] = {}  # by both ends of a connection
        self._throttle = Throttle()

    async def run(self) -> None:
        """Check until cancelled."""
        fewest = min(self._limits.values())
        while os.path.isdir(_FILES):
            if len(os.listdir(_FILES)) > fewest:
                for address, count in (await asyncio.to_thread(self.check)).items():
                    for _ in range(count):
                        self._on_closed()
                    if total := self._throttle.allow(address, count):
                        _LOG.warning("connections_closed", address=address, count=total)
            await asyncio.sleep(CHECK_EVERY_S)

    def check(self) -> dict[str, int]:
        """Shut down the newest connections beyond the limits; return their number by address. Blocking."""
        with contextlib.ExitStack() as opened:
            found: dict[tuple[str, int], list[tuple[int, socket.socket]]] = {}
            seen: dict[tuple[object, ...], int] = {}
            for connection, port, ends in _connections(opened):
                if port in self._limits:
                    seen[ends] = self._first_seen.get(ends, len(self._first_seen) + len(seen))
                    family = "ipv6" if connection.family == socket.AF_INET6 else "ipv4"
                    host = str(ends[-1][0]).removeprefix("::ffff:")
                    peer = f"ipv6:[{host}]:0" if family == "ipv6" and ":" in host else f"ipv4:{host}:0"
                    found.setdefault((address_of(peer), port), []).append((seen[ends], connection))
            self._first_seen = {ends: place for place, ends in enumerate(sorted(seen, key=lambda ends: seen[ends]))}
            closed: dict[str, int] = {}
            for (address, port), connections in found.items():
                connections.sort(key=lambda item: item[0])
                for _, connection in connections[self._limits[port] :]:
                    with contextlib.suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)
                        closed[address] = closed.get(address, 0) + 1
            return closed


def _connections(opened: contextlib.ExitStack) -> Iterator[tuple[socket.socket, int, tuple[tuple[object, ...], ...]]]:
    """Yield a duplicate of each connected TCP socket of this process, its local port, and both of its ends."""
    for name in os.listdir(_FILES):
        try:
            if not os.readlink(f"{_FILES}/{name}").startswith("socket:"):
                continue
            duplicate = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # closed meanwhile
            continue
        opened.enter_context(duplicate)
        if duplicate.type != socket.SOCK_STREAM or duplicate.family not in (socket.AF_INET, socket.AF_INET6):
            continue
        with contextlib.suppress(OSError):  # not connected
            ends = duplicate.getsockname(), duplicate.getpeername()
            yield duplicate, ends[0][1], ends

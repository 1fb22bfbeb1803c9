"""Bound of the connections from one address; gRPC itself bounds only those of all addresses together.

Idle connections make no calls, so no handler sees them. The kernel's tables of TCP connections name them all; the
newest ones of an address with too many are shut down. Sockets of gRPC are duplicated for that alone: gRPC expects that
closing a socket ends its notifications, which a duplicate would prevent.
"""

import asyncio
import contextlib
import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cloud.service.rate_limit import network_of
from shared.logs import EventLog, Throttle

CHECK_EVERY_S = 1.0
_FILES = "/proc/self/fd"
_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_ESTABLISHED = "01"
_NOT_ACCEPTED = "0"  # as an inode
_LOG = EventLog("service")


@dataclass(frozen=True, slots=True)
class _Connection:
    inode: int  # grows with each socket
    port: int  # local
    peer: str  # address, of IPv6 its network


class ConnectionLimit:
    """Regular check of the connections to some ports; without /proc it does nothing.

    `limits`: largest number of connections from one address, by local port. `on_closed` is called for each connection
    that was shut down.
    """

    def __init__(self, limits: dict[int, int], on_closed: Callable[[], None]) -> None:
        self._limits, self._on_closed = limits, on_closed
        self._order: dict[int, int] = {}  # of appearance, by inode
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
        found: dict[tuple[str, int], list[int]] = {}
        order: dict[int, int] = {}
        for connection in sorted(_connections(self._limits), key=lambda connection: connection.inode):
            order[connection.inode] = self._order.get(connection.inode, len(self._order) + len(order))
            found.setdefault((connection.peer, connection.port), []).append(connection.inode)
        self._order = {inode: place for place, inode in enumerate(sorted(order, key=lambda inode: order[inode]))}
        surplus: dict[int, str] = {}
        for (peer, port), inodes in found.items():
            inodes.sort(key=lambda inode: self._order[inode])
            surplus.update(dict.fromkeys(inodes[self._limits[port] :], peer))
        closed: dict[str, int] = {}
        for inode in _shut_down(set(surplus)) if surplus else ():
            closed[surplus[inode]] = closed.get(surplus[inode], 0) + 1
        return closed


def _connections(ports: dict[int, int]) -> Iterator[_Connection]:
    """Yield the established connections to local ports; they may belong to other processes."""
    for table in _TABLES:
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            for line in table.read_text(encoding="ascii").splitlines()[1:]:
                _, local, remote, state, *_, inode = line.split()[:10]
                port = int(local.rpartition(":")[2], 16)
                if state == _ESTABLISHED and port in ports and inode != _NOT_ACCEPTED:
                    yield _Connection(int(inode), port, _address(remote.rpartition(":")[0]))


def _address(digits: str) -> str:
    """Return an address of the kernel's tables, which print words of 32 bits in the machine's byte order."""
    words = [int(digits[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(digits), 8)]
    address = ipaddress.ip_address(b"".join(words))
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return network_of(str(address))


def _shut_down(inodes: set[int]) -> Iterator[int]:
    """Shut down the sockets of this process with these inodes; yield each that was."""
    for name in os.listdir(_FILES):
        with contextlib.suppress(OSError):  # closed meanwhile
            kind, _, number = os.readlink(f"{_FILES}/{name}").partition(":")
            if kind == "socket" and (inode := int(number.strip("[]"))) in inodes:
                with socket.socket(fileno=os.dup(int(name))) as connection:
                    connection.shutdown(socket.SHUT_RDWR)
                inodes.discard(inode)
                yield inode

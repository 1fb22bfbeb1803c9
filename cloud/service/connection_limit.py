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

from shared.addresses import network_of
from shared.logs import EventLog, Throttle

CHECK_EVERY_S = 1.0
_FILES = "/proc/self/fd"
_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_ESTABLISHED = "01"
_NOT_ACCEPTED = "0"  # as an inode
_LOG = EventLog("service")


@dataclass(frozen=True, slots=True)
class _Connection:
    inode: int
    port: int  # local
    peer: str  # address, of IPv6 its network


class ConnectionLimit:
    """Regular check of the connections to some ports; without /proc it does nothing.

    `limits`: largest number of connections from one address, by local port. `on_closed` is called for each connection
    that was shut down.
    """

    def __init__(self, limits: dict[int, int], on_closed: Callable[[], None]) -> None:
        self._limits, self._on_closed = limits, on_closed
        self._checks = 0
        self._first_check: dict[int, int] = {}  # that found a connection, by inode
        self._throttle = Throttle()

    async def run(self) -> None:
        """Check until cancelled."""
        fewest = min(self._limits.values())
        while os.path.isdir(_FILES):
            try:
                if len(os.listdir(_FILES)) > fewest:
                    self._report(await asyncio.to_thread(self.check))
            except OSError as error:  # such as too many open files: the next round tries again
                if total := self._throttle.allow("unchecked"):
                    _LOG.warning("connections_unchecked", error=error, count=total)
            await asyncio.sleep(CHECK_EVERY_S)

    def _report(self, closed: dict[str, int]) -> None:
        for address, count in closed.items():
            for _ in range(count):
                self._on_closed()
            if total := self._throttle.allow(address, count):
                _LOG.warning("connections_closed", address=address, count=total)

    def check(self) -> dict[str, int]:
        """Shut down the newest connections beyond the limits; return their number by address. Blocking."""
        found: dict[tuple[str, int], list[int]] = {}
        for connection in _connections(self._limits):
            found.setdefault((connection.peer, connection.port), []).append(connection.inode)
        self._checks += 1
        present = {inode for inodes in found.values() for inode in inodes}
        self._first_check = {inode: self._first_check.get(inode, self._checks) for inode in present}
        closed: dict[str, int] = {}
        for (peer, port), inodes in found.items():
            if len(inodes) > self._limits[port]:
                closed[peer] = closed.get(peer, 0) + self._shut_down_newest(set(inodes), self._limits[port])
        return closed

    def _shut_down_newest(self, inodes: set[int], kept: int) -> int:
        """Shut down these sockets but the `kept` oldest ones of this process; return their number."""
        files = sorted((self._first_check[inode], file) for file, inode in _sockets() if inode in inodes)
        closed = 0
        for _, file in files[kept:]:
            with contextlib.suppress(OSError):  # closed meanwhile
                with socket.socket(fileno=os.dup(file)) as connection:
                    connection.shutdown(socket.SHUT_RDWR)
                closed += 1
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


def _sockets() -> Iterator[tuple[int, int]]:
    """Yield file number and inode of each socket of this process."""
    for name in os.listdir(_FILES):
        with contextlib.suppress(OSError):  # closed meanwhile
            kind, _, number = os.readlink(f"{_FILES}/{name}").partition(":")
            if kind == "socket":
                yield int(name), int(number.strip("[]"))

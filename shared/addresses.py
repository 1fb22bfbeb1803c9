"""Network addresses in the form host:port."""

import ipaddress
import re
from dataclasses import dataclass

MAX_PORT = 65535
IPV6_PREFIX = 64  # of one customer: its computers can choose the rest of the address
_HOST_NAME = re.compile(r"^(?!-)[A-Za-z0-9-]{1,63}(\.(?!-)[A-Za-z0-9-]{1,63})*$")


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port. An IPv6 host has no brackets here; its text form has them."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Parse "host:port" or "[IPv6]:port"; port 0 is valid.

        Raises ValueError for any other text. Host names may contain underscores, as container names do; a name for a
        certificate must pass `is_host` as well.
        """
        host, separator, port = text.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not separator or not port.isascii() or not port.isdigit() or int(port) > MAX_PORT:
            raise ValueError("write host:port, such as 127.0.0.1:7443; port 0 takes a free one")
        if ":" in bare and bare == host:
            raise ValueError("write host:port, with an IPv6 address in brackets, such as [::1]:7443")
        if not is_host(bare.replace("_", "-")):
            raise ValueError("write host:port, where host is a name or an IP address")
        return cls(bare, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only processes of this machine reach the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def from_here(self) -> "Address":
        """The address to connect to on this machine: "localhost" in place of a wildcard such as 0.0.0.0."""
        try:
            is_wildcard = ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            is_wildcard = False
        return Address("localhost", self.port) if is_wildcard else self


def is_host(text: str) -> bool:
    """Return whether `text` is an IP address or a valid host name (RFC 1123), without a port."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _HOST_NAME.match(text) is not None
    return True


def network_of(host: str) -> str:
    """Return an IPv4 address, or a name, as it is; of an IPv6 address its network."""
    if ":" not in host:
        return host
    try:
        return str(ipaddress.ip_network((host, IPV6_PREFIX), strict=False))
    except ValueError:
        return host

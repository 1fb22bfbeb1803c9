"""Proxies in front of the console: whose word on the browser's address, scheme and host is believed."""

import ipaddress
from collections.abc import Iterable

from cloud.service.http import AsgiApp, Receive, Scope, Send

_FORWARDED = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")
_SCHEMES = {"http": "https", "ws": "wss"}


class TrustedProxies:
    """ASGI middleware that takes over X-Forwarded-For, -Proto and -Host of proxies in `networks`.

    The application never sees the headers: those of anybody else are worth nothing.
    """

    def __init__(self, app: AsgiApp, networks: Iterable[str]) -> None:
        self._app = app
        self._networks = [ipaddress.ip_network(network) for network in networks]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] in ("http", "websocket"):
            self._take_over(scope)
        await self._app(scope, receive, send)

    def _take_over(self, scope: Scope) -> None:
        given = {name: _items(scope, name) for name in _FORWARDED}
        scope["headers"] = [item for item in scope["headers"] if item[0].lower() not in _FORWARDED]
        client = scope.get("client")
        if client is None or not self._trusts(client[0]):
            return
        addresses, schemes, hosts = given.values()
        if found := self._first_untrusted(addresses):
            scope["client"] = (found, 0)
        if schemes and schemes[-1].lower() == "https":
            scope["scheme"] = _SCHEMES.get(scope["scheme"], scope["scheme"])
        if hosts:
            others = [item for item in scope["headers"] if item[0].lower() != b"host"]
            scope["headers"] = [*others, (b"host", hosts[-1].encode("latin-1"))]

    def _first_untrusted(self, addresses: list[str]) -> str:
        """Return the address, from right to left, that is no trusted proxy; the leftmost if all of them are.

        A text that is no address ends the search: who wrote it is unknown.
        """
        found = ""
        for address in reversed(addresses):
            if _parse(address) is None:
                break
            found = address
            if not self._trusts(address):
                break
        return found

    def _trusts(self, text: str) -> bool:
        address = _parse(text)
        mapped = getattr(address, "ipv4_mapped", None)
        return address is not None and any((mapped or address) in network for network in self._networks)


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _items(scope: Scope, name: bytes) -> list[str]:
    values = [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]
    return [item.strip() for item in ",".join(values).split(",") if item.strip()]

"""Check of Host and Origin on the console's port: no foreign web page reads the console through a browser.

A page of another site can make its own name resolve to this machine (DNS rebinding), or send requests across sites.
Both show in the headers: the browser names the foreign site in `Host`, or in `Origin`.
"""

import json
from collections.abc import Iterable
from urllib.parse import urlsplit

from cloud.service.http import AsgiApp, Receive, Scope, Send
from shared.addresses import Address

OPEN_PATHS = ("/health", "/ready")  # probes may name a container by its address; the answers hold no data of devices
_DEFAULT_PORTS = {"http": 80, "https": 443}


class OriginCheck:
    """ASGI middleware that refuses foreign hosts and origins; `names` are hosts besides loopback and `listen`."""

    def __init__(self, app: AsgiApp, listen: Address, names: Iterable[str]) -> None:
        self._app = app
        self._names = {name.lower() for name in names}
        self._listen_host = listen.from_here.host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        refusal = self._refusal(scope) if scope["type"] == "http" else ""
        if not refusal:
            await self._app(scope, receive, send)
        else:
            body = json.dumps({"detail": refusal}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body if scope["method"] != "HEAD" else b""})

    def _refusal(self, scope: Scope) -> str:
        """Return why a request is refused, or an empty text."""
        if scope["path"] in OPEN_PATHS:
            return ""
        hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
        host = _host_and_port(f"//{hosts[0]}", 80) if len(hosts) == 1 else None
        if host is None or not self._is_known(host[0]):
            shown = ", ".join(hosts)[:100]
            return f"Host {shown!r} is not a name of this console: add it to console_names in cloud.toml."
        if any(not self._is_own(origin, hosts[0]) for origin in origins):
            shown = ", ".join(origins)[:100]
            return f"Origin {shown!r} is another site: requests of its pages are refused."
        return ""

    def _is_known(self, host: str) -> bool:
        return host in self._names or host == self._listen_host or Address(host, 0).is_loopback

    def _is_own(self, origin: str, host: str) -> bool:
        """Return whether an origin is the console's: the host of the request, or one of the names on a default port."""
        default_port = _DEFAULT_PORTS.get(origin.partition("://")[0].lower())
        if default_port is None:
            return False
        found = _host_and_port(origin, default_port)
        if found is None:
            return False
        return found == _host_and_port(f"//{host}", default_port) or (
            found[0] in self._names and found[1] == default_port
        )


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _host_and_port(url: str, default_port: int) -> tuple[str, int] | None:
    """Return host in lower case and port of a URL that has nothing else; None for any other text."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return host, default_port if port is None else port

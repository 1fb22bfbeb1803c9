"""HTTP front of the console's port: /health, /ready and /metrics; all other paths go to the application for people."""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol, TypeAlias

from prometheus_client.exposition import CONTENT_TYPE_LATEST

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class StreamingApp(Protocol):
    """ASGI application whose answers include streams without an end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""

    async def end_streams(self) -> None:
        """End the streams, so that the server can stop at once."""


class FrontApp:
    """ASGI application in front of `people`; `health` and `ready` return the bodies of their paths with a "status".

    /health answers 200 while the service runs, /ready only while it is ready.
    """

    def __init__(
        self,
        metrics_page: Callable[[], Awaitable[bytes]],
        health: Callable[[], dict[str, object]],
        ready: Callable[[], dict[str, object]],
        people: AsgiApp | None,
    ) -> None:
        self._metrics_page = metrics_page
        self._states = {"/health": (health, ("ready", "not ready")), "/ready": (ready, ("ready",))}
        self._people = people

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "http" and scope["path"] in self._states:
            state, good = self._states[scope["path"]]
            facts = state()
            status = 200 if facts["status"] in good else 503
            await _answer(scope, send, status, "application/json", json.dumps(facts).encode())
        elif scope["type"] == "http" and scope["path"] == "/metrics":
            await _answer(scope, send, 200, CONTENT_TYPE_LATEST, await self._metrics_page())
        elif self._people is not None:
            await self._people(scope, receive, send)
        else:
            await _nothing(scope, receive, send)


class ByPath:
    """ASGI application that passes each request to the application of the beginning of its path, or to `other`."""

    def __init__(self, applications: Mapping[str, AsgiApp], other: AsgiApp | None) -> None:
        self._applications, self._other = applications, other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        found = (app for start, app in self._applications.items() if scope.get("path", "").startswith(start))
        if (app := next(found, self._other)) is not None:
            await app(scope, receive, send)
        else:
            await _nothing(scope, receive, send)


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for an application that is not there."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "http":
        await _answer(scope, send, 404, "text/plain", b"Not found.\n")
    else:
        await send({"type": "websocket.close"})


async def _answer(scope: Scope, send: Send, status: int, content_type: str, body: bytes) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body if scope["method"] != "HEAD" else b""})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return

"""ASGI front of the HTTP API: token first, then a bounded body, then the application; answers get an ETag.

Uploaded files are the exception: their route reads the body itself, piece by piece.
"""

import asyncio
import hashlib
import re
from collections.abc import MutableMapping
from typing import Any

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.rest.access import Guard
from cloud.rest.problems import Problem, storage_problem
from shared.errors import StorageError

OPENAPI_PATH = "/api/v1/openapi.json"
OPEN_PATHS = (OPENAPI_PATH,)  # without a token: it holds no data
STREAMED = re.compile(r"/api/v1/training/uploads/[0-9a-f]{16}/files/.+")  # PUT: the route reads and bounds the body
MAX_BODY_BYTES = 64 * 1024
BODY_S = 10.0
_HEADERS = {"cache-control": "private, no-cache", "vary": "Authorization, Cookie", "x-content-type-options": "nosniff"}


class ApiFront:
    """ASGI application in front of the routes."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; web sockets are refused."""
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = _Answer(Headers(scope=scope), send, is_get=scope["method"] == "GET")
        try:
            if scope["path"] not in OPEN_PATHS:
                scope.setdefault("state", {})["caller"] = await self._guard.caller(Request(scope))
            if scope["method"] == "PUT" and STREAMED.fullmatch(scope["path"]):
                await self._app(scope, receive, answer.send)
                return
            body = await _body(receive)
        except (Problem, StorageError) as error:
            problem = error if isinstance(error, Problem) else storage_problem(error)
            await problem.response()(scope, receive, answer.send)
            return
        parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        await self._app(scope, lambda: _replay(parts, receive), answer.send)


class _Answer:
    """Answer that is collected, so that its body gives its ETag."""

    def __init__(self, request: Headers, send: Send, *, is_get: bool) -> None:
        self._request, self._send, self._is_get = request, send, is_get
        self._start: MutableMapping[str, Any] = {}
        self._body = bytearray()

    async def send(self, message: Message) -> None:
        """Collect a message; send the whole answer after the last one."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body", False):
            return
        headers = MutableHeaders(scope=self._start)
        headers.update(_HEADERS)
        if self._is_get and self._start["status"] == 200:
            tag = headers.get("etag") or f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'
            headers["etag"] = tag
            if _matches(self._request.get("if-none-match", ""), tag):
                self._start["status"] = 304
                self._body.clear()
                for name in ("content-length", "content-type"):
                    del headers[name]
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": bytes(self._body)})


def _matches(wanted: str, tag: str) -> bool:
    """Return whether If-None-Match names the tag; weak tags count too (RFC 9110, section 13.1.2)."""
    return wanted.strip() == "*" or tag in (item.strip().removeprefix("W/") for item in wanted.split(","))


async def _body(receive: Receive) -> bytes:
    """Return the body of a request; raises Problem for one that is too large or too slow."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise Problem(413, "body-too-large", f"The body is larger than {MAX_BODY_BYTES} bytes.")
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise Problem(408, "body-too-slow", f"The body did not arrive within {BODY_S:g} s.") from None


async def _replay(parts: list[Message], receive: Receive) -> Message:
    return parts.pop() if parts else await receive()

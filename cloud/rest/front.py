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
from cloud.rest.tags import matches
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
        answer = TaggedAnswer(Headers(scope=scope), send, is_get=scope["method"] == "GET")
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


class TaggedAnswer:
    """Answer on its way to the client.

    One without an ETag is collected, because its body gives the ETag. One that has an ETag passes in pieces.
    """

    def __init__(self, request: Headers, send: Send, *, is_get: bool) -> None:
        self._request, self._send, self._is_get = request, send, is_get
        self._start: MutableMapping[str, Any] = {}
        self._body = bytearray()
        self._passes = self._is_known = False

    async def send(self, message: Message) -> None:
        """Pass or collect a message; the body of an answer that the client has is dropped."""
        if message["type"] == "http.response.start":
            self._start = message
            headers = MutableHeaders(scope=message)
            headers.update(_HEADERS)
            self._passes = "etag" in headers
            if self._passes:
                await self._begin(headers)
        elif self._passes:
            if not self._is_known:
                await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_collected()

    async def _send_collected(self) -> None:
        headers = MutableHeaders(scope=self._start)
        if self._is_get and self._start["status"] == 200:
            headers["etag"] = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'
        await self._begin(headers)
        if not self._is_known:
            await self._send({"type": "http.response.body", "body": bytes(self._body)})

    async def _begin(self, headers: MutableHeaders) -> None:
        """Send the start, or all of 304 if the client has the answer."""
        is_tagged = self._is_get and self._start["status"] == 200
        self._is_known = is_tagged and matches(self._request.get("if-none-match", ""), headers["etag"])
        if self._is_known:
            self._start["status"] = 304
            for name in ("content-length", "content-type"):
                del headers[name]
        await self._send(self._start)
        if self._is_known:
            await self._send({"type": "http.response.body", "body": b""})


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

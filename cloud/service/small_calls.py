"""Bound of the memory of all calls with a single small request: everything but Submit.

gRPC reads a request before its handler starts, and one server has one limit for the size of a message. This interceptor
registers such calls as streams of requests, so that a request is read only if there is room.
"""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from cloud.service.access import Context, refuse
from cloud.service.rate_limit import address_of

if TYPE_CHECKING:
    Interceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    Interceptor = grpc.aio.ServerInterceptor

MAX_REQUEST_BYTES = 256 * 1024
READ_S = 5.0
READERS = 16
READERS_OF_ONE = 2
RETRY_MS = 1000
HEALTH_WATCH = "/grpc.health.v1.Health/Watch"

Handler = Any  # grpc.RpcMethodHandler, whose stubs are incomplete


class SmallCalls(Interceptor):
    """Reads small requests, at most READERS at once, and READERS_OF_ONE of one certificate or address.

    A request of more than MAX_REQUEST_BYTES, or one that does not arrive within READ_S, ends its call. The stream of
    health states is not served: one slow reader would hold up every change of the health.
    """

    def __init__(self) -> None:
        self._readers = asyncio.Semaphore(READERS)
        self._reading: dict[str, int] = {}

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], details: grpc.HandlerCallDetails
    ) -> Handler:
        """Return a handler that reads the request itself."""
        handler = await continuation(details)
        if handler is None or handler.request_streaming or details.method == HEALTH_WATCH:
            return None if details.method == HEALTH_WATCH else handler
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(handler), response_serializer=handler.response_serializer
            )
        return grpc.stream_unary_rpc_method_handler(
            self._unary(handler), response_serializer=handler.response_serializer
        )

    def _unary(self, handler: Handler) -> Any:
        async def call(_: AsyncIterator[bytes], context: Context) -> Any:
            return await handler.unary_unary(await self._request(handler, context), context)

        return call

    def _stream(self, handler: Handler) -> Any:
        assert inspect.isasyncgenfunction(handler.unary_stream)

        async def call(_: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            async for answer in handler.unary_stream(await self._request(handler, context), context):
                yield answer

        return call

    async def _request(self, handler: Handler, context: Context) -> Any:
        """Return the request; end the call if it is too large, slow or damaged."""
        caller = _caller(context)
        if self._reading.get(caller, 0) >= READERS_OF_ONE:
            message = "Too many calls of this device at once: try again."
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, message, retry_after_ms=RETRY_MS)
        self._reading[caller] = self._reading.get(caller, 0) + 1
        request = None
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READ_S), self._readers:
                    request = _parsed(handler, await context.read())
        finally:
            self._reading[caller] -= 1
            if not self._reading[caller]:
                del self._reading[caller]
        if request is None:
            message = f"The request takes over {READ_S:.0f} s, is damaged, or has over {MAX_REQUEST_BYTES} bytes."
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, message)
        return request


def _parsed(handler: Handler, data: Any) -> Any:
    if not isinstance(data, bytes) or len(data) > MAX_REQUEST_BYTES:
        return None
    try:
        return handler.request_deserializer(data)
    except Exception:  # of the protobuf parser
        return None


def _caller(context: Context) -> str:
    """Return a key for the caller: its certificate, or its address on a port without certificates."""
    pem = next(iter(context.auth_context().get("x509_pem_cert", ())), b"")
    return bytes(pem).decode("latin-1") if pem else address_of(context.peer())

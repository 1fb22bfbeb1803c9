"""Web server for the console's port, inside the service's event loop."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from cloud.service.http import AsgiApp
from shared.errors import SettingsError, VedetteError

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as _HttpProtocol
else:  # whose type says nothing about the members that both implementations have
    _HttpProtocol = AutoHTTPProtocol

STOP_S = 1.5
FIRST_REQUEST_S = 10.0


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the service, which ends all its parts."""
        yield


class _BoundedProtocol(_HttpProtocol):
    """HTTP connection that is closed at once beyond `limit`, and after FIRST_REQUEST_S without a complete request."""

    limit: int

    def connection_made(self, transport: Any) -> None:
        if len(self.connections) >= self.limit:
            transport.abort()
            return
        super().connection_made(transport)
        self.loop.call_later(FIRST_REQUEST_S, self._close_if_silent)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The time-out of idle connections ends with the first byte of a request.
        self.loop.call_later(FIRST_REQUEST_S, self._close_if_silent, self.cycle)

    def _close_if_silent(self, last: object = None) -> None:
        if self.cycle is last:
            self.transport.close()


class WebServer:
    """Web server of an ASGI application on a bound socket, for at most `max_connections`.

    `tls`: files of certificate and key, for HTTPS.
    """

    def __init__(
        self, app: AsgiApp, bound: socket.socket, max_connections: int, tls: tuple[Path, Path] | None = None
    ) -> None:
        configuration = uvicorn.Config(
            app,
            http=type("BoundedProtocol", (_BoundedProtocol,), {"limit": max_connections}),
            log_config=None,
            access_log=False,
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=1,
            proxy_headers=False,  # TrustedProxies does that; uvicorn would believe every program on this machine
            ssl_certfile=tls[0] if tls is not None else None,
            ssl_keyfile=tls[1] if tls is not None else None,
        )
        try:
            configuration.load()  # also reads certificate and key
        except OSError as error:
            raise SettingsError(f"console_certificate, console_key: cannot be used ({error}).") from None
        self._server = _Server(configuration)
        self._socket = bound
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to serve; return when the server answers requests."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            await asyncio.sleep(0.01)
            if self._task.done():
                raise VedetteError("The console could not start: see the log above.")

    async def stop(self) -> None:
        """Close open connections and end the application."""
        if self._task is None:
            return
        self._server.should_exit = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._task, STOP_S)

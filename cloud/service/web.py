"""Web server for the console's port, inside the service's event loop."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from cloud.service.http import AsgiApp
from shared.errors import VedetteError

STOP_S = 1.5


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the service, which ends all its parts."""
        yield


class WebServer:
    """Web server of an ASGI application on a bound socket."""

    def __init__(self, app: AsgiApp, bound: socket.socket) -> None:
        configuration = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            ws="websockets-sansio",
            ws_max_size=2**20,
            timeout_graceful_shutdown=1,
        )
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

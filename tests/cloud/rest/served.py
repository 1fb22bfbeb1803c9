"""The API of a filled store on a free port, for examples that use a real client."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from cloud.rest import create_api
from cloud.store.api_tokens import Scope, add_api_token, token_text
from tests.cloud.console.filled_store import CAMERA, SHUTTLE, Fleet, open_store


@contextmanager
def served_api(folder: Path) -> Iterator[tuple[str, str]]:
    """Serve an API with a few verdicts; the URL of its version and a token with every scope."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        settings = uvicorn.Config("", log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(settings)
        ended = threading.Event()
        thread = threading.Thread(target=lambda: (asyncio.run(_serve(folder, bound, settings, server)), ended.set()))
        thread.start()
        while not server.started and not ended.is_set():
            thread.join(0.02)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}/api/v1", token_text("docs", "secret")
        finally:
            server.should_exit = True
            thread.join(15)


async def _serve(folder: Path, bound: socket.socket, settings: uvicorn.Config, server: uvicorn.Server) -> None:
    store, registry = open_store(folder)
    async with store:
        fleet = Fleet(store, registry)
        await fleet.enrol()
        for odd in (True, False, True):
            await fleet.send(SHUTTLE, odd=odd)
            await fleet.send(CAMERA, odd=odd)
        await add_api_token(store, "docs", "secret", name="docs", scopes=list(Scope), expires_at_s=9e9)
        settings.app = create_api(store, store, late_after_s=60.0, webhook_hosts=("hooks.example",))
        await server.serve(sockets=[bound])

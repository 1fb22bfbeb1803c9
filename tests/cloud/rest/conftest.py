"""The API over the store of a fleet, and clients with tokens."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from cloud.enrolment import Enrolment
from cloud.jobs.desk import TrainingDesk
from cloud.live_views.desk import LiveViewDesk
from cloud.rest.app import create_api
from cloud.settings import CloudSettings
from cloud.store import open_store
from cloud.store.api_tokens import Scope, add_api_token, token_text
from cloud.store.read_queue import CONSOLE_READS
from cloud.system.figures import System
from cloud.system.machine import Machine
from tests.cloud.console.filled_store import Fleet

MakeClient = Callable[..., httpx.AsyncClient]
SECRET = "a-secret-of-the-tests"
CERTIFICATE = "-----BEGIN CERTIFICATE-----"


@pytest.fixture
async def clients(fleet: Fleet, tmp_path: Path) -> AsyncIterator[MakeClient]:
    """Make a client with a token of some scopes (all without any), or without one."""
    opened: list[httpx.AsyncClient] = []
    async with open_store(tmp_path, CONSOLE_READS) as reading:
        settings = CloudSettings(data_dir=tmp_path)
        api = create_api(
            reading,
            fleet.store,
            late_after_s=60.0,
            registry=fleet.registry,
            webhook_hosts=("127.0.0.1", ".example"),
            enrolment=Enrolment(lambda: ("plant:7443", "plant:7444"), CERTIFICATE, 3600.0),
            system=System(reading, settings, Machine(tmp_path)),
            live_views=LiveViewDesk(fleet.store, person_wait_s=lambda _: 0.0, device_wait_s=lambda _: 0.0),
            training=TrainingDesk(reading, fleet.store, fleet.registry, settings),
        )

        async def client(*scopes: Scope, authorization: str | None = None, host: str = "10.0.0.7") -> httpx.AsyncClient:
            if authorization is None:
                token_id = f"t{len(opened)}"
                values = {"name": "CI", "scopes": scopes or tuple(Scope), "expires_at_s": 9e9}
                await add_api_token(fleet.store, token_id, SECRET, **values)
                authorization = f"Bearer {token_text(token_id, SECRET)}"
            transport = httpx.ASGITransport(api, raise_app_exceptions=False, client=(host, 4711))
            headers = {"authorization": authorization} if authorization else {}
            opened.append(httpx.AsyncClient(transport=transport, base_url="http://api/api/v1", headers=headers))
            return opened[-1]

        yield client
        for each in opened:
            await each.aclose()


@pytest.fixture
async def client(clients: MakeClient) -> httpx.AsyncClient:
    """A client with every scope."""
    return await clients()

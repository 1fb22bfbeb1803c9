"""Sign-in in front of a small application, over an empty store, without a network."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cloud.accounts.identity import signed_in
from cloud.rest import create_api
from cloud.service.http import AsgiApp
from cloud.service.people import create_people_app
from cloud.settings import CloudSettings
from cloud.store import Store, open_store
from cloud.store.sqlite.store import DATABASE_FILE
from tests.accounts import CHEAP
from tests.cloud.console.filled_store import empty_database


async def who(request: Request) -> Response:
    """Answer with the person, in place of a page of the console."""
    person = signed_in(request.scope)
    return JSONResponse({"name": person.name if person else None})


@dataclass
class AccountApp:
    """The application, its store, and clients that keep cookies."""

    app: AsgiApp
    store: Store
    settings: CloudSettings
    make: Callable[..., httpx.AsyncClient]


@pytest.fixture
def app_settings() -> dict[str, Any]:
    """Settings of the service, for tests that need others."""
    return {}


@pytest.fixture
async def account_app(tmp_path: Path, app_settings: dict[str, Any]) -> AsyncIterator[AccountApp]:
    (tmp_path / DATABASE_FILE).write_bytes(empty_database())
    accounts = CHEAP | app_settings.pop("accounts", {})
    settings = CloudSettings.model_validate({"data_dir": tmp_path, "accounts": accounts, **app_settings})
    opened: list[httpx.AsyncClient] = []
    async with open_store(tmp_path, actor="service") as store:
        api = create_api(store, store, late_after_s=60.0)
        console = Starlette(routes=[Route("/", who), Route("/devices", who)])
        app = create_people_app(settings, store, store, api=api, console=console)

        def make(base_url: str = "http://127.0.0.1:7480", address: str = "127.0.0.1", **options: Any):
            transport = httpx.ASGITransport(app, client=(address, 4711))
            opened.append(httpx.AsyncClient(transport=transport, base_url=base_url, **options))
            return opened[-1]

        yield AccountApp(app, store, settings, make)
        for client in opened:
            await client.aclose()

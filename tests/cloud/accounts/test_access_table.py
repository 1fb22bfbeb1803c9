"""The table of routes holds every route of the real application, and the running service obeys it."""

import asyncio
import re
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.account_settings import AccountSettings
from cloud.accounts.access_table import ROUTES, SCOPES_OF_ROLE, Csrf, RouteAccess, route_of
from cloud.accounts.app import create_accounts_app
from cloud.accounts.context import AccountContext
from cloud.accounts.passwords import Passwords
from cloud.accounts.sessions import SessionBook
from cloud.accounts.sign_in import WRONG
from cloud.console import create_app
from cloud.rest.access import SCOPE_KEY
from cloud.rest.app import create_routes
from cloud.service.main import _make_console
from cloud.store.api_tokens import Scope
from cloud.store.sessions import end_sessions
from cloud.user_roles import UserRole
from tests.accounts import Browser, sign_in
from tests.cloud.accounts.forms import hidden
from tests.cloud.console.filled_store import Fleet
from tests.cloud.service.harness import Running, running, settings_for

PROVIDER = {"issuer": "https://id.example", "client_id": "console", "roles": {"a": "admin"}}


def walk(routes: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of each route below; a mounted application without routes is one for all its paths."""
    for route in routes:
        inner = route.effective_candidates() if hasattr(route, "effective_candidates") else None
        if inner is not None:  # an included router
            yield from walk(inner, prefix)
        elif getattr(route, "methods", None):
            yield from ((method, prefix + route.path) for method in route.methods if method not in ("HEAD", "OPTIONS"))
        elif getattr(route, "routes", None):
            yield from walk(route.routes, prefix + route.path)
        else:
            yield "GET", prefix + route.path + "/{rest:path}"


def example(path: str) -> str:
    """A path of a route, with parameters filled in."""
    return re.sub(r"\{\w+(:\w+)?\}", lambda found: "a/b.js" if found[1] == ":path" else "7", path)


async def test_the_table_holds_every_route_and_no_other(fleet: Fleet) -> None:
    settings = AccountSettings.model_validate({"oidc": PROVIDER})
    book = SessionBook(fleet.store, fleet.store, settings)
    account_app = AccountContext(settings, fleet.store, fleet.store, book, Passwords(settings))
    apps = (
        create_accounts_app(account_app),
        create_app(fleet.store, fleet.registry),
        create_routes(fleet.store, fleet.store, 60.0),
    )
    found = [route for app in apps for route in walk(app.routes)]
    assert len(found) > 40
    missing = [route for route in found if route_of(route[0], example(route[1])) is None]
    assert missing == [], "give each route its least role in cloud/accounts/access_table.py"
    used = {entry for method, path in found if (entry := (route_of(method, example(path)) or [None])[0])}
    unused = {entry.path for entry in set(ROUTES) - used}
    assert unused == set(), "routes that do not exist"


def test_a_role_has_the_scopes_of_its_routes_and_no_others(fleet: Fleet) -> None:
    document = create_routes(fleet.store, fleet.store, 60.0).openapi()
    scopes: dict[UserRole, set[str]] = {role: set() for role in UserRole}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            entry, _ = route_of(method.upper(), example(path))
            scopes[entry.role].add(operation[SCOPE_KEY])
    for role in UserRole:
        wanted = set().union(*(scopes[other] for other in UserRole if role.covers(other)))
        assert {scope.value for scope in SCOPES_OF_ROLE[role]} == wanted
    assert SCOPES_OF_ROLE[UserRole.ADMIN] == set(Scope)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/x"), ("DELETE", "/"), ("GET", "/media/"), ("PUT", "/account"), ("GET", "/link/a/b")]
)
def test_what_is_not_in_the_table_is_no_route(method: str, path: str) -> None:
    assert route_of(method, path) is None


OPEN_STATUSES = {200, 404}  # 404: no provider is set, and the example names no file and no link


async def call(client: httpx.AsyncClient, entry: RouteAccess, method: str, browser: Browser | None) -> int:
    """Status of a request as a page of the console makes it."""
    path = re.sub(r"\{sample_id\}", str(uuid.uuid4()), entry.path)
    headers = dict(browser.headers) if browser else {}
    content: dict[str, Any] = {}
    if entry.role is None and method == "POST":
        return await send_form(client, example(path))
    if entry.csrf is Csrf.FORM:
        content = {"data": {"csrf": headers.pop("X-CSRF-Token", "")}}
    elif method != "GET" and entry.role is not None:
        headers["Origin"] = str(client.base_url).rstrip("/")
        content = {"json": {}}
    async with client.stream(method, example(path), headers=headers, **content) as answer:
        return answer.status_code  # a stream of events does not end


async def send_form(client: httpx.AsyncClient, path: str) -> int:
    """Status of the form of a page without sign-in; 200 if its route answers that the password is wrong."""
    page = await client.get(path)
    token = hidden(page) if page.status_code == 200 else ""
    answer = await client.post(path, data={"csrf": token, "name": "nobody", "password": "wrong"})
    return 200 if answer.status_code == 401 and WRONG in answer.text else answer.status_code


def expected(entry: RouteAccess, role: UserRole | None) -> str:
    if entry.role is None:
        return "open"
    if role is None:
        return "no session"
    return "allowed" if role.covers(entry.role) else "refused"


def meaning(entry: RouteAccess, status: int) -> str:
    if entry.role is None:
        return "open" if status in OPEN_STATUSES else str(status)
    # After many requests without a token the API answers 429.
    return {401: "no session", 429: "no session", 403: "refused"}.get(
        status, "allowed" if status < 500 else str(status)
    )


async def check_every_route(cloud: Running, role: UserRole | None) -> None:
    url = cloud.service.addresses.console_url
    last = 2 + (list(UserRole).index(role) if role is not None else len(UserRole))
    transport = httpx.AsyncHTTPTransport(local_address=f"127.0.0.{last}")  # failed attempts count by address
    async with httpx.AsyncClient(base_url=url, timeout=30, transport=transport) as client:
        for entry in ROUTES:
            for method in entry.methods.split():
                browser = await sign_in(cloud.service.store, role) if role is not None else None
                status = await call(client, entry, method, browser)
                assert meaning(entry, status) == expected(entry, role), (role, method, entry.path, status)


async def test_the_running_service_gives_each_role_its_routes_and_no_other(tmp_path: Path) -> None:
    """Every route without a session, as viewer, operator and admin; then the stream, which ends with its session."""
    key = Ed25519PrivateKey.generate()
    async with running(settings_for(tmp_path), key, make_console=_make_console) as cloud:
        for role in (None, *UserRole):
            await check_every_route(cloud, role)
        browser = await sign_in(cloud.service.store)
        async with (
            httpx.AsyncClient(base_url=cloud.service.addresses.console_url, timeout=30) as client,
            client.stream("GET", "/live", headers={"Cookie": browser.headers["Cookie"]}) as stream,
        ):
            assert stream.status_code == 200
            lines = stream.aiter_lines()
            assert await anext(lines) == "retry: 1000"
            await end_sessions(cloud.service.store, "viewer", actor="test")
            async with asyncio.timeout(10):
                assert [line async for line in lines]  # to its end

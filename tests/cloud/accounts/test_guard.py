"""Guard of the routes: tokens against forged requests, roles, sites, unknown routes, and sign-in that is off."""

import asyncio
import contextlib

import pytest
from pydantic import ValidationError
from sqlalchemy import update

from cloud.accounts import sessions as open_sessions
from cloud.accounts.identity import signed_in
from cloud.accounts.sessions import SESSION_ENDED, OpenConnections, SessionBook
from cloud.settings import CloudSettings
from cloud.store.fleet import Place, set_place
from cloud.store.schema import sessions
from cloud.store.sessions import end_sessions, find_sessions, secret_hash
from cloud.user_roles import UserRole
from tests.accounts import sign_in
from tests.cloud.accounts.conftest import AccountApp
from tests.cloud.accounts.forms import PASSWORD
from tests.cloud.console.filled_store import add_devices

HTML = {"Accept": "text/html"}


async def test_a_change_by_a_session_needs_the_token_of_the_session(account_app: AccountApp) -> None:
    await add_devices(account_app.store, "press-07")
    admin, other = [await sign_in(account_app.store, UserRole.ADMIN) for _ in range(2)]
    path, body = "/api/v1/groups/presses/settings", {"audit_share": 0.02}
    client = account_app.make(cookies=admin.cookies)
    for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": other.headers["X-CSRF-Token"]}):
        assert (await client.put(path, json=body, headers=headers)).status_code == 403
    facts = (await client.get("/api/account")).json()
    assert facts["csrf_token"] == admin.headers["X-CSRF-Token"]
    changed = await client.put(path, json=body, headers={"X-CSRF-Token": facts["csrf_token"]})
    assert changed.status_code == 200
    (entry,) = (await client.get("/api/v1/audit", params={"action": "group.settings"})).json()["items"]
    assert entry["actor"] == "account:admin"


@pytest.mark.parametrize("path", ["/account/password", "/account/sessions", "/sign-out"])
async def test_forms_of_the_account_need_the_token_of_the_session(account_app: AccountApp, path: str) -> None:
    browser = await sign_in(account_app.store, name="ada")
    await sign_in(account_app.store, name="ada")
    client = account_app.make(cookies=browser.cookies)
    fields = {"session": "others", "present": PASSWORD, "password": PASSWORD, "again": PASSWORD}
    for token in ("", "0" * 64):
        assert (await client.post(path, data={"csrf": token, **fields})).status_code == 403
    assert len(await find_sessions(account_app.store, [secret_hash(browser.secret)])) == 1


async def test_a_session_ends_by_time_and_by_command(account_app: AccountApp) -> None:
    browser = await sign_in(account_app.store)
    client = account_app.make(cookies=browser.cookies)
    assert (await client.get("/devices")).status_code == 200
    assert (await account_app.make(cookies={"vedette-session": "x" * 43}).get("/devices")).status_code == 401
    assert (await account_app.make(cookies={"vedette-session": "x" * 4000}).get("/devices")).status_code == 401
    await end_sessions(account_app.store, "viewer", actor="test")  # as another process does
    await asyncio.sleep(open_sessions.KEPT_S)
    assert (await client.get("/devices")).status_code == 401
    idle = await sign_in(account_app.store)
    async with account_app.store.writing() as connection:
        await connection.execute(update(sessions).values(seen_at_s=1.0))
    assert (await account_app.make(cookies=idle.cookies).get("/devices")).status_code == 401


async def test_a_route_beyond_the_role_says_which_role_it_needs(account_app: AccountApp) -> None:
    browser = await sign_in(account_app.store)
    client = account_app.make(cookies=browser.cookies)
    refused = await client.get("/api/v1/audit")
    assert (refused.status_code, "needs the role admin" in refused.text) == (403, True)
    page = await client.get("/api/v1/audit", headers=HTML)
    assert "<h1>Forbidden</h1>" in page.text


async def test_an_unknown_route_is_nothing_for_anybody(account_app: AccountApp) -> None:
    admin = await sign_in(account_app.store, UserRole.ADMIN)
    client = account_app.make(cookies=admin.cookies)
    for path in ("/nonsense", "/devices/", "/api/v1/nonsense", "/media/x"):
        assert (await client.get(path)).status_code == 404, path
        assert (await account_app.make().get(path)).status_code == 401, path
    assert (await client.post("/devices", headers=admin.headers)).status_code == 404


async def test_an_account_for_some_sites_gets_nothing_of_others(account_app: AccountApp) -> None:
    await add_devices(account_app.store, "press-07", "camera-1")
    await set_place(account_app.store, ["press-07"], Place(site="hull"))
    browser = await sign_in(account_app.store, UserRole.ADMIN, "ada", sites=("hull",))
    client = account_app.make(cookies=browser.cookies)
    cases = {
        "/api/v1/devices/press-07": 200,
        "/api/v1/devices/camera-1": 403,
        "/api/v1/devices/unknown": 403,
        "/api/v1/verdicts?device=press-07": 200,
        "/api/v1/verdicts?device=camera-1": 403,
        "/api/v1/verdicts?device=press-07&device=camera-1": 403,
        "/api/v1/verdicts": 200,
        "/api/v1/devices": 200,
        "/api/v1/audit": 403,
        "/media/00000000-0000-0000-0000-000000000000/image.png": 403,
        "/devices": 200,
        "/devices?device=camera-1": 403,
        "/account": 200,
    }
    assert {path: (await client.get(path)).status_code for path in cases} == cases
    removed = await client.delete("/api/v1/devices/camera-1", headers=browser.headers)
    assert removed.status_code == 403


async def test_an_open_connection_ends_soon_after_its_session(
    account_app: AccountApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_sessions, "CHECK_S", 0.05)
    book = SessionBook(account_app.store, account_app.store, account_app.settings.accounts)
    connections = OpenConnections(book, account_app.store)
    told: list[dict] = []

    async def app(scope, receive, send) -> None:
        await send({"type": "websocket.accept"})
        await receive()

    async def wait_for_ever() -> dict:
        return await asyncio.Future()

    async def tell(message) -> None:
        told.append(message)

    async def open_one(name: str) -> asyncio.Task:
        browser = await sign_in(account_app.store, name=name)
        (session,) = (await find_sessions(account_app.store, [secret_hash(browser.secret)])).values()
        return asyncio.create_task(connections.run(session, app, {"type": "websocket"}, wait_for_ever, tell))

    kept, ended = await open_one("ada"), await open_one("bob")
    await asyncio.sleep(0.2)
    assert not ended.done()
    await end_sessions(account_app.store, "bob", actor="test")
    await asyncio.wait_for(ended, 5)
    assert told[-1] == {"type": "websocket.close", "code": SESSION_ENDED}
    assert not kept.done()
    kept.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await kept


@pytest.mark.parametrize("app_settings", [{"sign_in": False}])
async def test_without_sign_in_anybody_on_this_machine_looks_and_changes_nothing(account_app: AccountApp) -> None:
    client = account_app.make()
    assert (await client.get("/devices")).json() == {"name": ""}
    for path in ("/account", "/sign-in", "/link/x"):
        assert "Sign-in is off" in (await client.get(path)).text
    assert (await client.get("/static/accounts/theme.css")).status_code == 200
    assert (await client.get("/api/v1/verdicts")).status_code == 401, "the API needs a token as ever"
    assert (await client.get("/api/v1/audit")).status_code == 403
    assert (await client.put("/api/v1/groups/presses/settings", json={})).status_code == 403


def test_sign_in_is_off_on_this_machine_alone() -> None:
    for values in ({"console_listen": "0.0.0.0:7480"}, {"trusted_proxies": ["10.0.0.0/8"]}):
        CloudSettings.model_validate(values)
        with pytest.raises(ValidationError, match="for this machine alone"):
            CloudSettings.model_validate({"sign_in": False, **values})
    with pytest.raises(ValidationError, match="trusted_proxies"):
        CloudSettings.model_validate({"console_behind_proxy": True})


def test_a_request_without_a_guard_has_no_person() -> None:
    assert signed_in({}) is None


async def test_a_session_has_a_bounded_number_of_open_pages(
    account_app: AccountApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_sessions, "MAX_OPEN_OF_SESSION", 2)
    connections = OpenConnections(
        SessionBook(account_app.store, account_app.store, account_app.settings.accounts), account_app.store
    )
    browser = await sign_in(account_app.store)
    (session,) = (await find_sessions(account_app.store, [secret_hash(browser.secret)])).values()
    left = asyncio.Event()
    told: list[int] = []

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await left.wait()

    async def tell(message) -> None:
        if message["type"] == "http.response.start":
            told.append(message["status"])

    async def receive() -> dict:
        return await asyncio.Future()

    opened = [asyncio.create_task(connections.run(session, app, {"type": "http"}, receive, tell)) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    left.set()
    await asyncio.gather(*opened)
    assert sorted(told) == [200, 200, 429]
    await connections.run(session, app, {"type": "http"}, receive, tell)
    assert told[-1] == 200
    running = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}
    assert "OpenConnections._watch" not in running


async def test_a_signed_in_person_labels_in_no_other_name(account_app: AccountApp) -> None:
    browser = await sign_in(account_app.store, UserRole.OPERATOR, "ada")
    client = account_app.make(cookies=browser.cookies, headers=browser.headers)
    path = "/api/v1/samples/00000000-0000-7000-8000-000000000000/labels"
    refused = await client.post(path, json={"label": "real", "author": "bob"})
    assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (422, "foreign-author")
    assert (await client.post(path, json={"label": "real", "author": "ada"})).status_code == 404

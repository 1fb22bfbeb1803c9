"""Sign-in by name and password: cookies, forms, limits, equal answers, and no secret in a log."""

import asyncio
import logging
import re
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.account_settings import AccountSettings
from cloud.accounts.context import EXPIRED, TOO_MANY
from cloud.accounts.failure_limit import (
    ACCOUNT_FAILURES,
    ACCOUNT_FAILURES_S,
    FAILURES,
    FAILURES_S,
    AttemptLimits,
)
from cloud.accounts.passwords import MAX_WAITING, Passwords, password_problem
from cloud.accounts.requests import NOT_PRIVATE, own_path
from cloud.accounts.sign_in import WRONG
from cloud.store.sessions import sessions_of
from cloud.store.users import add_user, find_user, set_disabled
from cloud.user_roles import UserRole
from tests.accounts import CHEAP, sign_in
from tests.cloud.accounts.conftest import AccountApp
from tests.cloud.accounts.forms import PASSWORD, fill, hidden, sign_in_by_form


async def add(account_app: AccountApp, name: str = "ada", password: str = PASSWORD, **settings: object) -> None:
    hashed = await Passwords(AccountSettings(**(CHEAP | settings))).hash(password)
    async with account_app.store.writing() as connection:
        await add_user(connection, name, UserRole.OPERATOR, actor="test", password_hash=hashed)


async def test_a_person_signs_in_looks_and_signs_out(account_app: AccountApp) -> None:
    await add(account_app)
    client = account_app.make()
    asked = await client.get("/devices?after=x", headers={"Accept": "text/html"})
    assert (asked.status_code, asked.headers["location"]) == (303, "/sign-in?next=%2Fdevices%3Fafter%3Dx")
    entered = await fill(
        client, asked.headers["location"], "/sign-in", name=" ADA ", password=PASSWORD, next="/devices"
    )
    assert (entered.status_code, entered.headers["location"]) == (303, "/devices")
    cookie = entered.headers["set-cookie"]
    assert cookie.startswith("vedette-session=")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie, "plain HTTP on this machine"
    assert (await client.get("/devices")).json() == {"name": "ada"}
    (session,) = await sessions_of(account_app.store, "ada")
    assert client.cookies["vedette-session"] not in str(session)
    again = await sign_in_by_form(client, "ada")
    assert again.status_code == 303
    assert len(await sessions_of(account_app.store, "ada")) == 1, "it replaces the session that the browser had"
    out = await fill(client, "/account", "/sign-out")
    assert (out.status_code, out.headers["location"]) == (303, "/signed-out")
    assert await sessions_of(account_app.store, "ada") == []
    assert (await client.get("/devices")).status_code == 401


async def test_over_https_the_cookie_is_for_this_host_alone(account_app: AccountApp) -> None:
    await add(account_app)
    client = account_app.make("https://console.plant.example", "10.0.0.7")
    cookie = (await sign_in_by_form(client, "ada")).headers["set-cookie"]
    assert re.match(r"__Host-vedette-session=[\w-]{43}; HttpOnly; Max-Age=\d+; Path=/; SameSite=lax; Secure", cookie)
    assert (await client.get("/devices")).json() == {"name": "ada"}
    plain = {"vedette-session": client.cookies["__Host-vedette-session"]}
    assert (await account_app.make("https://console.plant.example", cookies=plain).get("/devices")).status_code == 401


@pytest.mark.parametrize("path", ["/sign-in", "/link/abc", "/devices"])
async def test_plain_http_under_another_name_is_refused_in_one_sentence(account_app: AccountApp, path: str) -> None:
    for host in ("console.plant.example", "10.0.0.5:7480", "127.0.0.1.evil.example"):
        answer = await account_app.make(f"http://{host}").get(path, headers={"Accept": "text/html"})
        assert answer.status_code == 403
        assert NOT_PRIVATE in answer.text.replace("&#39;", "'")


async def test_wrong_unknown_and_disabled_accounts_get_the_same_answer(account_app: AccountApp) -> None:
    for name in ("ada", "bob"):
        await add(account_app, name)
    await sign_in(account_app.store, UserRole.VIEWER, "eve")  # has no password
    await set_disabled(account_app.store, "bob", disabled=True)
    pages = []
    for name, password in (("ada", "wrong"), ("bob", PASSWORD), ("eve", PASSWORD), ("nobody", PASSWORD), ("", "")):
        answer = await sign_in_by_form(account_app.make(), name, password)
        assert (answer.status_code, WRONG in answer.text) == (401, True)
        assert "vedette-session" not in str(answer.headers)
        pages.append(re.sub(r'value="[^"]*"|autofocus', "", answer.text))
    assert len({" ".join(page.split()) for page in pages}) == 1


async def test_a_form_of_another_browser_or_site_does_nothing(account_app: AccountApp) -> None:
    await add(account_app)
    token = hidden(await account_app.make().get("/sign-in"))
    client = account_app.make()
    await client.get("/sign-in")
    for values in ({}, {"csrf": token}, {"csrf": ""}):
        answer = await client.post("/sign-in", data={"name": "ada", "password": PASSWORD, **values})
        assert (answer.status_code, EXPIRED in answer.text) == (403, True)
    assert (await account_app.make().post("/sign-in", data={"csrf": token, "name": "ada"})).status_code == 403
    assert await sessions_of(account_app.store, "ada") == []


async def test_failures_are_bounded_by_address(account_app: AccountApp) -> None:
    await add(account_app)
    attacker = account_app.make(address="10.0.0.9")
    statuses = [(await sign_in_by_form(attacker, f"guess{n}", "wrong")).status_code for n in range(FAILURES + 1)]
    assert statuses == [401] * FAILURES + [429]
    refused = await sign_in_by_form(attacker, "ada")
    assert (refused.status_code, TOO_MANY in refused.text) == (429, True)
    assert int(refused.headers["retry-after"]) > 0
    assert (await sign_in_by_form(account_app.make(address="10.0.0.8"), "ada")).status_code == 303


async def test_no_stranger_blocks_an_account_and_guesses_from_many_addresses_are_bounded(
    account_app: AccountApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    limits = AttemptLimits(lambda: now_s)
    begin, succeeded = limits.begin, limits.succeeded
    monkeypatch.setattr(AttemptLimits, "begin", lambda _, *key: begin(*key))
    monkeypatch.setattr(AttemptLimits, "succeeded", lambda _, *key: succeeded(*key))
    await add(account_app)

    async def status(address: str, password: str = PASSWORD, name: str = "ada") -> int:
        return (await sign_in_by_form(account_app.make(address=address), name, password)).status_code

    assert await status("10.0.0.1") == 303  # the owner
    for minute in range(3):  # one address gives ten failures in ten minutes
        assert [await status("10.0.0.9", "wrong") for _ in range(FAILURES)] == ([429] if minute else [401]) * FAILURES
        now_s += FAILURES_S
    assert await status("10.0.0.2") == 303
    for number in range(ACCOUNT_FAILURES - FAILURES):
        assert begin(f"10.0.1.{number}", "ada") == 0.0
    assert await status("10.0.2.1") == 429
    assert await status("10.0.2.1", "wrong", "bob") == 401
    assert [await status(address) for address in ("10.0.0.1", "10.0.0.2")] == [303, 303]
    guesses = [await status("10.0.0.1", "wrong") for _ in range(FAILURES + 1)]
    assert guesses == [401] * FAILURES + [429], "an address that is known is bounded, too"
    now_s += ACCOUNT_FAILURES_S
    assert await status("10.0.2.1") == 303


async def test_attempts_at_the_same_time_count_before_they_are_checked(account_app: AccountApp) -> None:
    await add(account_app)
    clients = [account_app.make() for _ in range(FAILURES + 5)]
    answers = await asyncio.gather(*(sign_in_by_form(client, "ada", "wrong") for client in clients))
    assert sorted(answer.status_code for answer in answers) == [401] * FAILURES + [429] * 5


async def test_a_hash_with_older_parameters_is_replaced_at_sign_in(account_app: AccountApp) -> None:
    await add(account_app, password_passes=2)
    async with account_app.store.reading() as connection:
        _, before = await find_user(connection, "ada")
    for _ in range(2):
        assert (await sign_in_by_form(account_app.make(), "ada")).status_code == 303
        async with account_app.store.reading() as connection:
            _, after = await find_user(connection, "ada")
        assert ",t=2," in before
        assert ",t=1," in after


async def test_only_a_few_passwords_are_checked_at_once() -> None:
    passwords = Passwords(AccountSettings(**CHEAP, password_checks=1))
    checks = [asyncio.create_task(passwords.verify(None, PASSWORD)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    assert passwords.is_busy
    assert not any(await asyncio.gather(*checks))
    assert not passwords.is_busy


async def test_characters_count_and_not_the_way_they_are_typed() -> None:
    passwords = Passwords(AccountSettings(**CHEAP))
    assert await passwords.verify(await passwords.hash("Caf\u00e9 Z\u00fcrich 7"), "Cafe\u0301 Zu\u0308rich 7")
    for wrong in ("", "aaaaaaaaaaaaaa", "x" * 300, "is ada's secret"):
        assert password_problem(wrong, "ada")
    assert not password_problem(PASSWORD, "ada")


@pytest.mark.parametrize(
    "text", ["//evil.example", "https://evil.example", "/\\evil", "", "javascript:1", "/a\nb", "/" + "x" * 3000]
)
def test_the_page_after_sign_in_is_one_of_this_console(text: str) -> None:
    assert own_path(text) == "/"


async def test_no_password_cookie_or_token_is_logged(account_app: AccountApp, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("vedette").propagate = True
    caplog.set_level(logging.DEBUG)
    await add(account_app)
    client = account_app.make()
    await sign_in_by_form(client, "ada", "a wrong secret")
    await sign_in_by_form(client, "ada")
    await client.get("/link/a-secret-of-a-link")
    logged = str([record.__dict__ for record in caplog.records if record.name.startswith("vedette")])
    assert "sign_in_refused" in logged
    assert "signed_in" in logged
    for secret in (PASSWORD, "a wrong secret", "a-secret-of-a-link", client.cookies["vedette-session"]):
        assert secret not in logged


FIELDS = st.dictionaries(
    st.sampled_from(["name", "password", "next", "csrf"]) | st.text(max_size=5), st.text(max_size=40), max_size=5
)
BODIES = FIELDS.map(lambda fields: urlencode(fields, errors="surrogatepass").encode()) | st.binary(max_size=200)
KINDS = st.sampled_from(["application/x-www-form-urlencoded", "text/plain", "", "multipart/form-data"])


@given(body=BODIES, kind=KINDS)
async def test_any_form_gets_a_page(account_app: AccountApp, body: bytes, kind: str) -> None:
    client = account_app.make()
    token = hidden(await client.get("/sign-in"))
    for content in (body, body + f"&csrf={token}".encode()):
        answer = await client.post("/sign-in", content=content, headers={"Content-Type": kind})
        assert answer.status_code in (401, 403, 429)
        assert "<h1>" in answer.text
        assert "vedette-session" not in str(answer.headers)

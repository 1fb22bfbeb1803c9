"""One-time links, and the page of the own account."""

import pytest

from cloud.accounts.links import VOID
from cloud.accounts.own_account import CHANGED
from cloud.service.people import first_admin_link
from cloud.settings import CloudSettings
from cloud.store.account_links import LinkPurpose, add_link
from cloud.store.sessions import sessions_of
from cloud.store.users import list_users, set_disabled
from cloud.user_roles import UserRole
from tests.accounts import sign_in
from tests.cloud.accounts.conftest import AccountApp
from tests.cloud.accounts.forms import PASSWORD, fill, hidden, sign_in_by_form

OTHER = "another long password"


async def test_the_first_link_makes_an_administrator_once(account_app: AccountApp) -> None:
    link = await first_admin_link(account_app.store, account_app.settings, "http://127.0.0.1:7480/")
    again = await first_admin_link(account_app.store, account_app.settings, "http://127.0.0.1:7480/")
    client = account_app.make()
    assert "There is no account yet" in (await client.get("/sign-in")).text
    for fields, problem in [
        ({"name": "A b", "password": PASSWORD, "again": PASSWORD}, "A name has"),
        ({"name": "ada", "password": "short", "again": "short"}, "12 to 256"),
        ({"name": "ada", "password": PASSWORD, "again": OTHER}, "different"),
    ]:
        refused = await fill(client, link, **fields)
        assert (refused.status_code, problem in refused.text) == (422, True)
    made = await fill(client, link, name="Ada", password=PASSWORD, again=PASSWORD)
    assert made.status_code == 303
    (user,) = await list_users(account_app.store)
    assert (user.name, user.role) == ("ada", UserRole.ADMIN)
    assert (await client.get("/devices")).json() == {"name": "ada"}
    for void in (link, again):
        answer = await account_app.make().get(void)
        assert (answer.status_code, VOID in answer.text) == (404, True)
    assert await first_admin_link(account_app.store, account_app.settings, "http://127.0.0.1:7480/") is None
    assert (await sign_in_by_form(account_app.make(), "ada")).status_code == 303


async def test_a_link_of_a_service_behind_a_proxy_names_its_host(account_app: AccountApp) -> None:
    values = {"trusted_proxies": ["10.0.0.0/8"], "console_names": ["console.plant.example"]}
    behind = CloudSettings.model_validate(values)
    assert (await first_admin_link(account_app.store, behind, "http://0.0.0.0:7480/")).startswith(
        "https://console.plant.example/link/"
    )
    direct = await first_admin_link(account_app.store, account_app.settings, "http://0.0.0.0:7480/")
    assert direct.startswith("http://localhost:7480/link/")


@pytest.mark.parametrize("purpose", [LinkPurpose.PASSWORD, LinkPurpose.SIGN_IN])
async def test_opening_a_link_spends_nothing_and_using_it_signs_in(
    account_app: AccountApp, purpose: LinkPurpose
) -> None:
    await sign_in(account_app.store, name="ada")
    await add_link(account_app.store, "secret", purpose, valid_s=60, user_name="ada")
    for _ in range(3):
        assert (await account_app.make().get("/link/secret")).status_code == 200
    client = account_app.make()
    token = hidden(await client.get("/link/secret"))
    assert (await account_app.make().post("/link/secret", data={"csrf": token})).status_code == 403, (
        "of another browser"
    )
    fields = {"csrf": token, "password": OTHER, "again": OTHER, "name": "eve"}
    assert (await client.post("/link/secret", data=fields)).status_code == 303
    assert (await client.get("/devices")).json() == {"name": "ada"}
    assert (await account_app.make().get("/link/secret")).status_code == 404
    found = {session.session_id for session in await sessions_of(account_app.store, "ada")}
    assert len(found) == (1 if purpose is LinkPurpose.PASSWORD else 2), "a new password ends the other sessions"
    entered = (await sign_in_by_form(account_app.make(), "ada", OTHER)).status_code
    assert entered == (303 if purpose is LinkPurpose.PASSWORD else 401)


async def test_a_disabled_account_has_no_use_of_its_link(account_app: AccountApp) -> None:
    await sign_in(account_app.store, name="ada")
    await add_link(account_app.store, "secret", LinkPurpose.SIGN_IN, valid_s=60, user_name="ada")
    await set_disabled(account_app.store, "ada", disabled=True)
    assert (await account_app.make().get("/link/secret")).status_code == 404


async def test_guesses_of_links_are_bounded(account_app: AccountApp) -> None:
    client = account_app.make()
    statuses = [(await client.get(f"/link/guess{n}")).status_code for n in range(11)]
    assert statuses == [404] * 10 + [429]


async def test_a_person_changes_the_password_and_ends_sessions(account_app: AccountApp) -> None:
    await sign_in(account_app.store, name="ada")
    await add_link(account_app.store, "secret", LinkPurpose.PASSWORD, valid_s=60, user_name="ada")
    client = account_app.make()
    await fill(client, "/link/secret", password=PASSWORD, again=PASSWORD)
    others = [await sign_in(account_app.store, name="ada") for _ in range(3)]
    page = await client.get("/account")
    assert page.text.count("End the session from") == 3
    token = hidden(page)
    await client.post("/account/sessions", data={"csrf": token, "session": others[0].session_id})
    assert len(await sessions_of(account_app.store, "ada")) == 3
    await client.post("/account/sessions", data={"csrf": token, "session": "others"})
    assert len(await sessions_of(account_app.store, "ada")) == 1
    await sign_in(account_app.store, name="ada")
    new = {"csrf": token, "password": OTHER, "again": OTHER}
    wrong = await client.post("/account/password", data={**new, "present": OTHER})
    assert (wrong.status_code, "present password is wrong" in wrong.text) == (403, True)
    changed = await client.post("/account/password", data={**new, "present": PASSWORD})
    assert CHANGED in changed.text
    assert len(await sessions_of(account_app.store, "ada")) == 1
    assert (await client.get("/devices")).status_code == 200
    assert (await sign_in_by_form(account_app.make(), "ada", OTHER)).status_code == 303

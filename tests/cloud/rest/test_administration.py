"""What an administrator's week needs: devices, enrolment tokens, accounts, API tokens, and figures of the service."""

import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest

from cloud.enrolment import Enrolment
from cloud.rest import create_api
from cloud.service.people import create_people_app
from cloud.settings import CloudSettings
from cloud.store.account_links import LinkPurpose, find_link
from cloud.store.api_tokens import Scope
from cloud.store.fleet import Place, device_of_token, set_place, spend_token
from cloud.store.sessions import sessions_of
from cloud.user_roles import UserRole
from shared.enrolment import EnrolmentToken
from shared.errors import EnrolmentError, SettingsError
from tests.accounts import CHEAP, sign_in
from tests.cloud.console.filled_store import CAMERA, SHUTTLE, Fleet
from tests.cloud.rest.conftest import CERTIFICATE, MakeClient

MakeBrowser = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def browsers(fleet: Fleet, tmp_path: Path) -> AsyncIterator[MakeBrowser]:
    """Make a signed-in browser on the API."""
    settings = CloudSettings.model_validate({"data_dir": tmp_path, "accounts": CHEAP})
    enrolment = Enrolment(lambda: ("plant:7443", "plant:7444"), CERTIFICATE, 3600.0)
    api = create_api(fleet.store, fleet.store, late_after_s=60.0, enrolment=enrolment, accounts=settings.accounts)
    app = create_people_app(settings, fleet.store, fleet.store, api=api, console=None)
    opened: list[httpx.AsyncClient] = []

    async def browser(name: str = "ada", role: UserRole = UserRole.ADMIN, sites: tuple[str, ...] = ()):
        facts = await sign_in(fleet.store, role, name, sites=sites)
        options = {"base_url": "http://127.0.0.1:7480/api/v1", "headers": facts.headers}
        opened.append(httpx.AsyncClient(transport=httpx.ASGITransport(app), **options))
        return opened[-1]

    yield browser
    for each in opened:
        await each.aclose()


async def audited(client: httpx.AsyncClient, action: str) -> list[tuple[str, str]]:
    items = (await client.get("/audit", params={"action": action})).json()["items"]
    return [(item["actor"].split(" ")[0], item["subject"]) for item in items]


async def test_a_device_is_renamed_moved_and_revoked(fleet: Fleet, client: httpx.AsyncClient) -> None:
    path = f"/devices/{SHUTTLE.device_id}"
    changed = (await client.patch(path, json={"title": "  Radiator\n of <b>bay A ", "site": "hull"})).json()
    assert (changed["title"], changed["site"], changed["group"]) == ("Radiator of <b>bay A", "hull", "default")
    assert (await client.patch(path, json={"title": "", "group": "presses"})).json()["title"] == ""
    for body in ({"title": "x" * 81}, {"site": "a b"}, {"group": ""}, {"name": "x"}):
        assert (await client.patch(path, json=body)).status_code == 422, body
    revoked = (await client.post(f"{path}/revocation")).json()
    assert revoked["health"] == "revoked"
    for method, suffix in (("PATCH", ""), ("POST", "/revocation")):
        answer = await client.request(method, f"/devices/nobody{suffix}", json={"title": "x"})
        assert answer.status_code == 404
    for action in ("device.named", "device.placed", "device.revoked"):
        assert ("api:CI", SHUTTLE.device_id) in await audited(client, action)


async def test_the_history_of_a_device_is_what_its_heartbeats_reported(fleet: Fleet, client: httpx.AsyncClient) -> None:
    (point,) = (await client.get(f"/devices/{SHUTTLE.device_id}/history")).json()["items"]
    assert point["counters"]["samples_screened"] == 41_000
    assert point["health"] == "healthy"
    assert (await client.get("/devices/nobody/history", params={"hours": "1"})).json() == {"items": []}


async def test_a_token_is_shown_once_enrols_once_and_can_be_deleted(fleet: Fleet, client: httpx.AsyncClient) -> None:
    made = (await client.post("/tokens", json={"device_id": "press-08", "site": "hull"})).json()
    token = EnrolmentToken.from_text(made["token"])
    assert (token.device_id, token.address, token.ca_certificate_pem) == ("press-08", "plant:7443", CERTIFICATE)
    assert made["command"] == f"vedette edge enroll --config edge.toml --token {made['token']}"
    drawn = ElementTree.fromstring(made["qr_svg"])
    assert drawn.tag.endswith("svg")
    assert "style" not in made["qr_svg"], "the policy of the pages refuses styles in a file"
    listed = (await client.get("/tokens")).json()["items"]
    assert [(item["token_id"], item["device_id"], item["site"]) for item in listed] == [
        (made["token_id"], "press-08", "hull")
    ]
    assert token.secret not in str(listed)
    async with fleet.store.reading() as connection:
        assert await device_of_token(connection, token.secret, time.time()) == "press-08"
    assert (await client.delete(f"/tokens/{made['token_id']}")).status_code == 204
    assert (await client.delete(f"/tokens/{made['token_id']}")).status_code == 404
    async with fleet.store.reading() as connection:
        with pytest.raises(EnrolmentError):
            await device_of_token(connection, token.secret, time.time())
    assert ("api:CI", "press-08") in await audited(client, "token.deleted")
    assert (await client.post("/tokens", json={"device_id": "../etc"})).status_code == 422


async def test_a_spent_token_is_not_listed(fleet: Fleet, client: httpx.AsyncClient) -> None:
    made = (await client.post("/tokens", json={"device_id": "press-08"})).json()
    async with fleet.store.writing() as connection:
        await spend_token(connection, EnrolmentToken.from_text(made["token"]).secret, "2f", 9e9, time.time())
    assert (await client.get("/tokens")).json() == {"items": []}
    assert (await client.delete(f"/tokens/{made['token_id']}")).status_code == 404


async def test_no_token_is_made_while_the_addresses_are_unknown(fleet: Fleet) -> None:
    def unknown() -> tuple[str, str]:
        raise SettingsError("The service listens on all addresses: set advertised_address.")

    enrolment = Enrolment(unknown, CERTIFICATE, 60.0)
    with pytest.raises(SettingsError):
        await enrolment.new_token(fleet.store, "press-08")


async def test_an_account_for_some_sites_manages_their_devices_alone(fleet: Fleet, browsers: MakeBrowser) -> None:
    await set_place(fleet.store, [SHUTTLE.device_id], Place(site="hull"))
    hull = await browsers("bob", sites=("hull",))
    own, other = f"/devices/{SHUTTLE.device_id}", f"/devices/{CAMERA.device_id}"
    assert (await hull.patch(own, json={"title": "Radiator"})).status_code == 200
    for request in (
        hull.patch(own, json={"site": "elsewhere"}),
        hull.patch(other, json={"title": "mine"}),
        hull.post(f"{other}/revocation"),
        hull.get(f"{other}/history"),
        hull.post("/tokens", json={"device_id": CAMERA.device_id, "site": "hull"}),  # would take it over
        hull.post("/tokens", json={"device_id": "press-08", "site": "elsewhere"}),
        hull.post("/tokens", json={"device_id": "press-08"}),
        hull.get("/users"),
        hull.post("/users", json={"name": "eve", "role": "admin"}),
        hull.get("/api-tokens"),
        hull.get("/system"),
    ):
        assert (await request).status_code == 403
    assert (await hull.post("/tokens", json={"device_id": SHUTTLE.device_id})).status_code == 201
    assert (await hull.post("/tokens", json={"device_id": "press-08", "site": "hull"})).status_code == 201
    admin = await browsers("ada")
    elsewhere = (await admin.post("/tokens", json={"device_id": "camera-9"})).json()["token_id"]
    listed = {item["device_id"] for item in (await hull.get("/tokens")).json()["items"]}
    assert listed == {SHUTTLE.device_id, "press-08"}
    assert (await hull.delete(f"/tokens/{elsewhere}")).status_code == 404


async def test_a_person_is_invited_changed_and_disabled(fleet: Fleet, browsers: MakeBrowser) -> None:
    admin = await browsers("ada")
    invited = (await admin.post("/users", json={"name": " Grace ", "role": "operator", "sites": ["hull"]})).json()
    assert (invited["name"], invited["role"], invited["sites"]) == ("grace", "operator", ["hull"])
    found = re.fullmatch(r"http://127\.0\.0\.1:7480/link/(.+)", invited["link"])
    assert found
    async with fleet.store.reading() as connection:
        link = await find_link(connection, found[1])
    assert (link.purpose, link.user_name) == (LinkPurpose.PASSWORD, "grace")
    assert (await admin.post("/users", json={"name": "grace"})).status_code == 409
    assert (await admin.post("/users", json={"name": "no spaces"})).status_code == 422
    await sign_in(fleet.store, name="grace")
    assert (await admin.patch("/users/grace", json={"role": "viewer", "sites": []})).json()["sites"] == []
    assert await sessions_of(fleet.store, "grace") == [], "another role ends the sessions"
    assert (await admin.patch("/users/grace", json={"disabled": True})).json()["disabled_at"]
    assert (await admin.post("/users/grace/links")).status_code == 409
    assert (await admin.patch("/users/grace", json={"disabled": False})).json()["disabled_at"] is None
    await sign_in(fleet.store, name="grace")
    assert (await admin.delete("/users/grace/sessions")).status_code == 204
    assert await sessions_of(fleet.store, "grace") == []
    listed = (await admin.get("/users")).json()["items"]
    assert [item["name"] for item in listed] == ["ada", "grace"]
    assert "link" not in str(listed)
    for method, path in (("PATCH", ""), ("POST", "/links"), ("DELETE", "/sessions")):
        assert (await admin.request(method, f"/users/nobody{path}", json={})).status_code == 404
    assert ("account:ada", "grace") in await audited(admin, "user.disabled")


async def test_nobody_changes_the_own_account_so_that_an_administrator_remains(browsers: MakeBrowser) -> None:
    admin = await browsers("ada")
    for body in ({"role": "viewer"}, {"disabled": True}, {"sites": ["hull"]}):
        assert (await admin.patch("/users/ada", json=body)).status_code == 409
    assert (await admin.get("/users")).status_code == 200


async def test_a_token_gives_no_more_rights_than_its_maker_has(clients: MakeClient) -> None:
    maker = await clients(Scope.API_TOKENS_WRITE, Scope.VERDICTS_READ)
    refused = await maker.post("/api-tokens", json={"name": "x", "scopes": ["verdicts:read", "users:write"]})
    assert (refused.status_code, "users:write" in refused.json()["detail"]) == (403, True)
    made = (await maker.post("/api-tokens", json={"name": "x", "scopes": ["verdicts:read"], "days": 2})).json()
    client = await clients(authorization=f"Bearer {made['token']}")
    assert (await client.get("/verdicts")).status_code == 200
    assert (await client.get("/devices")).status_code == 403
    reader = await clients(Scope.API_TOKENS_READ)
    listed = (await reader.get("/api-tokens")).json()["items"]
    assert made["token"] not in str(listed)
    assert (await maker.delete(f"/api-tokens/{made['token_id']}")).status_code == 204
    assert (await client.get("/verdicts")).status_code == 401
    states = {item["token_id"]: item["is_valid"] for item in (await reader.get("/api-tokens")).json()["items"]}
    assert states[made["token_id"]] is False


async def test_the_figures_are_those_of_the_store_and_the_machine(fleet: Fleet, client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await fleet.send(SHUTTLE, at_s=time.time() - 2)
    await fleet.leave_waiting(CAMERA)
    found = (await client.get("/system")).json()
    assert [window["verdicts"] for window in found["throughput"]] == [3, 3, 3]
    assert found["latency"]["verdicts"] == 3
    assert 0 < found["latency"]["from_arrival_median_s"] < found["latency"]["from_capture_median_s"] < 10
    assert (found["queues"]["waiting_samples"], found["queues"]["devices"]) == (1, [[CAMERA.device_id, 1]])
    assert found["storage"]["store_bytes"] > 100_000
    assert found["storage"]["retention_days"]["history_days"] == 14
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["disk_free_bytes"] > 0
    assert 'console_listen = "127.0.0.1:7480"' in (await client.get("/system/settings")).json()["toml"]

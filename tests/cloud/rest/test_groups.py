"""Groups over the API: names, settings with a version, history and undo, forecasts, and moves of devices."""

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloud.rest import create_api, groups
from cloud.service.people import create_people_app
from cloud.settings import CloudSettings
from cloud.store.fleet import Place, set_place
from cloud.store.group_settings import change_settings
from cloud.store.replay.builder import count_verdicts
from cloud.user_roles import UserRole
from shared.group_settings import GroupSettings
from tests.accounts import CHEAP, sign_in
from tests.cloud.console.filled_store import ARTERY, CAMERA, SHUTTLE, Fleet

MakeBrowser = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def browsers(fleet: Fleet, tmp_path: Path) -> AsyncIterator[MakeBrowser]:
    """Make a signed-in browser on the API."""
    settings = CloudSettings.model_validate({"data_dir": tmp_path, "accounts": CHEAP})
    api = create_api(fleet.store, fleet.store, late_after_s=60.0, accounts=settings.accounts)
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


async def test_a_group_is_made_renamed_and_removed(client: httpx.AsyncClient) -> None:
    assert (await client.post("/groups", json={"group": "presses"})).status_code == 201
    again = await client.post("/groups", json={"group": "presses"})
    assert (again.status_code, again.json()["type"]) == (409, "urn:vedette:problem:group-refused")
    assert (await client.patch("/groups/presses", json={"group": "welds"})).json() == {"group": "welds"}
    assert [item["group"] for item in (await client.get("/groups")).json()["items"]] == ["default", "welds"]
    assert (await client.delete("/groups/presses")).status_code == 404
    assert (await client.delete("/groups/welds")).status_code == 204
    assert (await client.delete("/groups/default")).status_code == 409
    for body in ({"group": ""}, {"group": "a b"}, {"group": "x" * 65}, {}, {"group": "x", "more": 1}):
        assert (await client.post("/groups", json=body)).status_code == 422, body


async def test_the_second_of_two_changes_is_asked(client: httpx.AsyncClient) -> None:
    seen = await client.get("/groups/default/settings")
    assert seen.headers["etag"] == '"0"'
    asked = {"If-Match": seen.headers["etag"]}
    first = await client.put("/groups/default/settings", json={"audit_share": 0.1}, headers=asked)
    assert first.status_code == 200
    second = await client.put("/groups/default/settings", json={"audit_share": 0.2}, headers=asked)
    assert (second.status_code, second.json()["type"]) == (412, "urn:vedette:problem:settings-changed")
    assert (await client.get("/groups/default/settings")).json()["audit_share"] == 0.1
    for text in ('"x"', "7", '"' + "9" * 30 + '"', 'W/"1"'):
        answer = await client.put("/groups/default/settings", json={}, headers={"If-Match": text})
        assert answer.status_code == 412, text
    asked["If-Match"] = first.headers["etag"]
    assert (await client.put("/groups/default/settings", json={"audit_share": 0.2}, headers=asked)).status_code == 200
    kept = await client.get("/groups/default/settings", headers={"If-None-Match": asked["If-Match"]})
    assert kept.status_code == 200, "another version"


async def test_a_change_answers_with_its_own_version(
    fleet: Fleet, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def then_another(*given: Any, **facts: Any) -> tuple[GroupSettings, int]:
        changed = await change_settings(*given, **facts)
        await change_settings(fleet.store, "default", GroupSettings(audit_share=0.9))
        return changed

    monkeypatch.setattr(groups, "change_settings", then_another)
    first = await client.put("/groups/default/settings", json={"audit_share": 0.1})
    monkeypatch.undo()
    asked = {"If-Match": first.headers["etag"]}
    second = await client.put("/groups/default/settings", json={"audit_share": 0.2}, headers=asked)
    assert second.status_code == 412, "somebody has changed them since"
    assert (await client.get("/groups/default/settings")).json()["audit_share"] == 0.9


async def test_the_history_has_the_forecast_and_an_undo(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fleet.send_many(8, until_s=time.time() - 60)
    await count_verdicts(fleet.store)
    await client.put("/groups/default/settings", json={"false_alarms_per_day": 3.0})
    await client.put("/groups/default/settings", json={"false_alarms_per_day": 0.5, "audit_share": 0.02})
    newest, oldest = (await client.get("/groups/default/history")).json()["items"]
    assert (oldest["before"]["audit_share"], oldest["after"]["false_alarms_per_day"]) == (None, 3.0)
    assert newest["forecast"]["trust"] in ("exact", "estimate", "unknown")
    assert newest["forecast"]["items_per_day"] >= 0
    assert (await client.post("/groups/default/undo", json={"change": oldest["number"]})).status_code == 412
    undone = await client.post("/groups/default/undo", json={"change": newest["number"]})
    assert undone.json() == oldest["after"]
    first = (await client.get("/groups/default/history", params={"size": 1})).json()
    assert first["items"][0]["undoes"] == newest["number"]
    rest = (await client.get("/groups/default/history", params={"cursor": first["next"], "size": 1})).json()
    assert rest["items"][0]["number"] == newest["number"]
    assert (await client.get("/groups/nobody/history")).json() == {"items": [], "next": None}
    entries = (await client.get("/audit", params={"action": "group.settings"})).json()["items"]
    assert len(entries) == 3


async def test_a_group_names_its_bundles_and_late_devices(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await set_place(fleet.store, [CAMERA.device_id], Place(group="cameras"))
    found = (await client.get("/groups/cameras")).json()
    assert sorted(found["bundles"]) == sorted(fleet.bundle_ids.values())
    assert (found["devices"], found["late"], found["version"]) == (1, [], 0)


async def test_a_forecast_answers_with_curves_and_refuses_what_is_no_setting(
    fleet: Fleet, client: httpx.AsyncClient
) -> None:
    await fleet.send_many(12, until_s=time.time() - 60)
    await count_verdicts(fleet.store)
    query = {"false_alarms_per_day": 0.5, "max_samples_per_s": 0.01}
    found = (await client.get("/groups/default/forecast", params=query)).json()
    assert found["devices"] == 4
    assert found["proposed"]["false_alarms_per_day"] == 0.5
    assert found["proposed"]["max_samples_per_s"] == 0.01
    assert {len(values) for values in found["alarm_curve"].values()} == {61}
    assert {len(values) for values in found["upload_curve"].values()} == {42}
    assert found["trust"] == "unknown", "one heartbeat gives no rate"
    assert found["proposed"]["samples_per_day"] <= found["present"]["samples_per_day"]
    assert (await client.get("/groups/nobody/forecast")).status_code == 404
    for bad in ({"false_alarms_per_day": "nan"}, {"max_samples_per_s": -1}, {"false_alarms_per_day": 1e7}, {"x": 1}):
        assert (await client.get("/groups/default/forecast", params=bad)).status_code == 422, bad


async def test_devices_move_and_return(fleet: Fleet, client: httpx.AsyncClient) -> None:
    ids = [SHUTTLE.device_id, CAMERA.device_id]
    moved = await client.post("/moves", json={"device_ids": ids, "site": "hull", "group": "presses"})
    assert (moved.status_code, sorted(moved.json()["moved"])) == (201, sorted(ids))
    undo = f"/moves/{moved.json()['move']}/undo"
    assert sorted((await client.post(undo)).json()["moved"]) == sorted(ids)
    assert (await client.post(undo)).status_code == 404
    every = {"matching": {"health": "never seen", "devices": 1}, "group": "spare"}
    assert (await client.post("/moves", json=every)).json()["moved"] == ["press-7"]
    every["matching"]["devices"] = 9
    assert (await client.post("/moves", json=every)).status_code == 409
    assert (await client.post("/moves", json={"device_ids": ["nobody"], "site": "x"})).status_code == 404
    for body in (
        {"device_ids": ids},
        {"site": "x"},
        {"device_ids": ids, "matching": {"devices": 1}, "site": "x"},
        {"device_ids": ["x"] * 501, "site": "x"},
        {"device_ids": ids, "site": "a b"},
        {"matching": {"health": "x", "devices": 1}, "site": "x"},
        {"matching": {"devices": -1}, "site": "x"},
    ):
        assert (await client.post("/moves", json=body)).status_code == 422, body


async def test_roles_and_sites_are_respected(fleet: Fleet, browsers: MakeBrowser) -> None:
    await set_place(fleet.store, [CAMERA.device_id], Place("north", "cameras"))
    operator = await browsers("olga", UserRole.OPERATOR)
    for method, path, body in (
        ("PUT", "/groups/default/settings", {}),
        ("POST", "/groups", {"group": "x"}),
        ("POST", "/groups/default/undo", {"change": 1}),
        ("POST", "/moves", {"device_ids": [CAMERA.device_id], "group": "x"}),
    ):
        assert (await operator.request(method, path, json=body)).status_code == 403, path
    assert (await operator.get("/groups/default/forecast")).status_code == 200
    of_site = await browsers("norbert", UserRole.ADMIN, ("north",))
    assert (await of_site.put("/groups/cameras/settings", json={})).status_code == 403
    for path in ("/groups/default", "/groups/default/forecast", "/groups/default/history"):
        assert (await of_site.get(path)).status_code == 404, path
        assert (await of_site.get(path.replace("default", "cameras"))).status_code == 200, path
    foreign = {"device_ids": [ARTERY.device_id], "group": "x"}
    assert (await of_site.post("/moves", json=foreign)).status_code == 404
    away = {"device_ids": [CAMERA.device_id], "site": "south"}
    assert (await of_site.post("/moves", json=away)).status_code == 403
    own = {"device_ids": [CAMERA.device_id], "group": "moved"}
    assert (await of_site.post("/moves", json=own)).json()["moved"] == [CAMERA.device_id]

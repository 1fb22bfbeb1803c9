"""Defect classes, reported misses and mutes over the HTTP API: rights, sites, bad input."""

import time

import httpx
from sqlalchemy import update

from cloud.accounts.identity import SCOPE_KEY, SignedIn
from cloud.rest.app import create_api
from cloud.store.api_tokens import Scope
from cloud.store.review.builder import build_items
from cloud.store.schema import devices
from cloud.user_roles import UserRole
from tests.cloud.console.filled_store import XSS, Fleet
from tests.cloud.rest.conftest import MakeClient
from tests.cloud.store.review.judged import Judged, judge

HOT = (("temperature", 0.9), ("speed", 0.1))


async def fill(fleet: Fleet, *places: str) -> None:
    """One item a place, of the same pattern."""
    place = fleet_device(fleet)
    await judge(
        fleet.store, *(Judged(1000 * at, device_id=name or place, contributions=HOT) for at, name in enumerate(places))
    )
    await build_items(fleet.store)


def fleet_device(fleet: Fleet) -> str:
    from tests.cloud.console.filled_store import SHUTTLE

    return SHUTTLE.device_id


async def test_a_mute_is_previewed_made_listed_ended_and_resumed(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fill(fleet, "", "")
    assert (await client.post("/mutes", json={"item": 1})).json()["type"].endswith("no-pattern")
    decision = {"items": [{"item": 1}], "decision": "false_alarm"}
    assert (await client.post("/review/decisions", json=decision)).is_success
    preview = (await client.post("/mutes/preview", json={"item": 1})).json()
    assert (preview["items"], preview["hidden"], preview["real"], preview["left"]) == (2, [2, 1], [], [2])
    made = await client.post("/mutes", json={"item": 1, "note": XSS}, headers={"Idempotency-Key": "k"})
    assert made.status_code == 201
    again = await client.post("/mutes", json={"item": 1, "note": XSS}, headers={"Idempotency-Key": "k"})
    assert again.json() == made.json()
    assert (made.json()["number"], made.json()["hidden_last_day"], made.json()["hidden_last_week"]) == (1, 1, 1)
    assert 6.99 < (time.time() + 7 * 86_400 - _seconds(made.json()["expires_at"])) + 7 < 8
    (item,) = (await client.get("/review/items", params={"muted": "true"})).json()["items"]
    assert (item["number"], item["muted"], item["muted_by"]) == (2, True, 1)
    assert item["cover"]["decision"] == "anomalous"
    counts = (await client.get("/review/counts")).json()
    assert (sum(counts["left"].values()), counts["muted"]) == (0, 1)
    (listed,) = (await client.get("/mutes", params={"active": "true"})).json()["items"]
    assert (listed["note"], listed["hidden_items"], listed["hidden_last_day"], listed["active"]) == (XSS, 1, 1, True)
    ended = (await client.post("/mutes/1/end")).json()
    assert (ended["items"], ended["hidden_last_day"], ended["active"]) == (1, 1, False)
    assert (await client.post("/mutes/1/end")).json()["type"].endswith("mute-ended")
    resumed = (await client.post("/mutes/1/resume")).json()
    assert (resumed["items"], resumed["hidden_last_week"], resumed["active"]) == (1, 1, True)
    assert (await client.post("/mutes/99/end")).status_code == 404
    for wrong in ({"days": 0}, {"days": 91}, {"likeness": 0.1}, {"scope": "planet"}, {"item": 0}, {"nonsense": 1}):
        assert (await client.post("/mutes", json={"item": 1} | wrong)).status_code == 422, wrong


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


async def test_hidden_reals_are_asked(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fill(fleet, "", "")
    for item, decision in ((1, "false_alarm"), (2, "real")):
        body = {"items": [{"item": item}], "decision": decision}
        assert (await client.post("/review/decisions", json=body)).is_success
    refused = await client.post("/mutes", json={"item": 1})
    assert refused.status_code == 409
    assert refused.json()["preview"]["real"] == [2]
    assert (await client.post("/mutes", json={"item": 1, "accepts_real": True})).status_code == 201


async def test_an_account_of_a_site_sees_and_mutes_its_own(fleet: Fleet, client: httpx.AsyncClient) -> None:
    device = fleet_device(fleet)
    async with fleet.store.writing() as connection:
        await connection.execute(update(devices).where(devices.c.device_id == device).values(site="lab"))
    await fill(fleet, "")
    body = {"items": [{"item": 1}], "decision": "false_alarm"}
    assert (await client.post("/review/decisions", json=body)).is_success

    def person(site: str, role: UserRole = UserRole.OPERATOR) -> httpx.AsyncClient:
        api = create_api(fleet.store, fleet.store, late_after_s=60.0)

        async def signed(scope, receive, send) -> None:
            who = SignedIn("ada", role, (site,))
            await api(scope | {SCOPE_KEY: who}, receive, send)

        return httpx.AsyncClient(transport=httpx.ASGITransport(signed), base_url="http://api/api/v1")

    async with person("yard") as other, person("lab") as own:
        assert (await other.post("/mutes", json={"item": 1})).status_code == 404
        assert (await other.post("/mutes/preview", json={"item": 1})).status_code == 404
        assert (await own.post("/mutes", json={"item": 1, "scope": "bundle"})).status_code == 409
        assert (await own.post("/mutes", json={"item": 1, "scope": "site"})).json()["site"] == "lab"
        assert (await other.get("/mutes")).json()["items"] == []
        assert len((await own.get("/mutes")).json()["items"]) == 1
        assert (await other.post("/mutes/1/end")).status_code == 404
        span = {"device_id": device, "source_id": "lab", "begin": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:05:00Z"}
        assert (await other.post("/missed", json=span)).status_code == 404
        assert (await own.post("/missed", json=span)).status_code == 201
        assert (await other.get("/missed")).json()["items"] == []
        assert (await other.delete("/missed/1")).status_code == 404


async def test_classes_are_added_by_operators_and_changed_by_administrators(clients: MakeClient, fleet: Fleet) -> None:
    operator, admin = await clients(Scope.LABELS_WRITE, Scope.LABELS_READ), await clients()
    assert (await operator.post("/defect-classes", json={"name": XSS[:60]})).status_code == 201
    assert (await operator.post("/defect-classes", json={"name": "dent"})).status_code == 201
    assert (await operator.post("/defect-classes", json={"name": "DENT"})).status_code == 200
    assert (await operator.post("/defect-classes", json={"name": "   "})).status_code == 409
    assert (await operator.patch("/defect-classes/1", json={"name": "x"})).status_code == 403
    assert (await admin.patch("/defect-classes/1", json={"name": "scratch"})).json()["name"] == "scratch"
    assert (await admin.patch("/defect-classes/1", json={})).status_code == 422
    assert (await admin.patch("/defect-classes/1", json={"merge_into": 1})).status_code == 409
    assert (await admin.patch("/defect-classes/1", json={"merge_into": 2})).json()["name"] == "dent"
    assert [each["name"] for each in (await operator.get("/defect-classes")).json()["items"]] == ["dent"]
    await fill(fleet, "", "")
    body = {"items": [{"item": 1}], "decision": "real", "defect_class": "Scratch"}
    assert (await admin.post("/review/decisions", json=body)).json()["items"][0]["defect_class"] == "dent"
    assert [each["number"] for each in (await admin.get("/review/items", params=_OF_CLASS)).json()["items"]] == [1]
    for wrong in ({"defect_class": "rust"}, {"decision": "unsure"}):
        refused = await admin.post("/review/decisions", json=body | {"items": [{"item": 2}]} | wrong)
        assert (refused.status_code, refused.json()["type"][-13:]) == (422, "class-refused")
    assert (await admin.delete("/defect-classes/2")).status_code == 204
    assert (await admin.delete("/defect-classes/2")).status_code == 404


_OF_CLASS = {"state": "real", "defect_class": "dent"}


async def test_a_miss_is_reported_of_a_sample_or_of_a_time_and_withdrawn(
    fleet: Fleet, client: httpx.AsyncClient
) -> None:
    await fill(fleet, "")
    await client.post("/defect-classes", json={"name": "dent"})
    sample_id = (await client.get("/verdicts")).json()["items"][0]["sample_id"]
    of_sample = {"sample_id": sample_id, "defect_class": "dent", "note": "seen by hand"}
    for status in (201, 200):
        answer = await client.post("/missed", json=of_sample, headers={"Idempotency-Key": "k"})
        assert answer.status_code == status
    (label,) = (await client.get(f"/samples/{sample_id}/labels")).json()
    assert (label["label"], label["defect_class"], label["note"]) == ("missed", "dent", "seen by hand")
    device = fleet_device(fleet)
    span = {"device_id": device, "source_id": XSS, "begin": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:05:00Z"}
    assert (await client.post("/missed", json=span)).json()["sample_id"] is None
    for wrong, status in (
        ({"end": span["begin"]}, 422),
        ({"end": "2026-01-31T00:00:00Z"}, 422),
        ({"begin": "2999-01-01T00:00:00Z", "end": "2999-01-01T00:01:00Z"}, 422),
        ({"source_id": " "}, 422),
        ({"device_id": "nobody"}, 404),
        ({"defect_class": "rust"}, 422),
        ({"begin": "yesterday"}, 422),
        ({"sample_id": "0" * 32}, 404),
    ):
        assert (await client.post("/missed", json=span | wrong)).status_code == status, wrong
    assert [each["number"] for each in (await client.get("/missed", params={"device": device})).json()["items"]] == [
        2,
        1,
    ]
    assert (await client.delete("/missed/1")).status_code == 204
    assert (await client.delete("/missed/1")).status_code == 404
    assert (await client.get(f"/samples/{sample_id}/labels")).json()[0]["label"] == "withdrawn"

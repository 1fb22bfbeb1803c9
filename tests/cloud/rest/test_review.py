"""Review items over the HTTP API: lists, counts, decisions with conflicts and undo, marks, views, sites."""

import time
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import update

from cloud.accounts.identity import SCOPE_KEY, SignedIn
from cloud.rest.app import create_api
from cloud.store.api_tokens import Scope
from cloud.store.review.builder import build_items
from cloud.store.schema import devices
from cloud.user_roles import UserRole
from tests.cloud.console.filled_store import ARTERY, CAMERA, SHUTTLE, Fleet

START_S = time.time() - 7200


async def fill(fleet: Fleet) -> None:
    """Three verdicts of one event at the camera, one each of two other sources, and one that nobody needs to see."""
    for place in range(3):
        await fleet.send(CAMERA, odd=True, at_s=START_S + 10 * place)
    await fleet.send(SHUTTLE, odd=True, at_s=START_S + 600)
    await fleet.send(ARTERY, odd=True, at_s=START_S + 1200)
    await fleet.send(ARTERY, odd=False, at_s=START_S + 1300)
    await build_items(fleet.store)


async def test_items_are_listed_counted_and_shown_in_full(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fill(fleet)
    first = (await client.get("/review/items", params={"size": 2})).json()
    assert [item["device_id"] for item in first["items"]] == [ARTERY.device_id, SHUTTLE.device_id]
    rest = (await client.get("/review/items", params={"size": 2, "cursor": first["next"]})).json()
    assert rest["next"] is None
    (camera,) = rest["items"]
    assert (camera["verdicts"], camera["decision"], camera["decision_number"]) == (3, None, 0)
    assert camera["cover"]["device_id"] == CAMERA.device_id
    counts = (await client.get("/review/counts")).json()
    assert sum(counts["left"].values()) == sum(counts["devices"].values()) == 3
    assert counts["newest"] == 3
    oddest = (await client.get("/review/items", params={"order": "oddest"})).json()["items"]
    assert [item["p_value"] for item in oddest] == sorted(item["p_value"] for item in oddest)
    full = (await client.get(f"/review/items/{camera['number']}")).json()
    assert len(full["members"]) == 3
    assert full["decisions"] == []
    begin, end = ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z")
    query = {"begin": begin, "end": end, "step_s": 3600}
    assert (await client.get("/review/density", params=query)).json() == {"items": []}
    for wrong in ({"severity": "loud"}, {"odds": 0}, {"state": "x"}, {"size": 900}, {"order": "up"}, {"nonsense": 1}):
        assert (await client.get("/review/items", params=wrong)).status_code == 422, wrong
    answer = await client.get("/review/counts", params={"sise": 1})
    assert "known parameters: severity, state, defect_class, muted, site" in answer.json()["detail"]
    assert (await client.get("/review/items/99")).status_code == 404


async def test_a_decision_is_stored_once_and_the_later_one_is_asked(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fill(fleet)
    body = {"items": [{"item": 1, "seen": 0}], "decision": "real", "note": "a foreign stone"}
    key = {"Idempotency-Key": "k1"}
    for _ in range(2):
        made = await client.post("/review/decisions", json=body, headers=key)
        assert made.status_code == 200
    number = made.json()["items"][0]["number"]
    conflict = await client.post("/review/decisions", json=body | {"decision": "unsure"})
    assert conflict.status_code == 409
    assert conflict.json()["type"] == "urn:vedette:problem:decided-meanwhile"
    (found,) = conflict.json()["decisions"]
    assert (found["author"], found["decision"], found["number"]) == ("CI", "real", number)
    shown = (await client.get("/review/items/1")).json()
    assert (shown["decision"], shown["note"], shown["reviewed"]) == ("real", "a foreign stone", True)
    assert {member["label"] for member in shown["members"]} <= {"real", "missed"}
    reused = await client.post("/review/decisions", json=body | {"note": ""}, headers=key)
    assert reused.json()["type"] == "urn:vedette:problem:key-reused"
    undone = await client.post("/review/undo", json={"decisions": [number]})
    assert undone.json()["items"][0]["decision"] is None
    assert {member["label"] for member in (await client.get("/review/items/1")).json()["members"]} == {None}
    assert (await client.post("/review/undo", json={"decisions": [number]})).status_code == 409
    assert (await client.post("/review/undo", json={"decisions": [4711]})).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"items": [], "decision": "real"},
        {"items": [{"item": 1}], "decision": "missed"},
        {"items": [{"item": 0}], "decision": "real"},
        {"items": [{"item": 2**63}], "decision": "real"},
        {"items": [{"item": 1, "seen": -1}], "decision": "real"},
        {"items": [{"item": 1}], "decision": "real", "note": "x" * 2001},
        {"items": [{"item": 1}] * 201, "decision": "real"},
        {"items": [{"item": 1}], "decision": "real", "author": "somebody else"},
    ],
)
async def test_a_decision_that_makes_no_sense_is_refused(client: httpx.AsyncClient, body: dict[str, object]) -> None:
    assert (await client.post("/review/decisions", json=body)).status_code == 422


async def test_marks_and_views_belong_to_the_caller(fleet: Fleet, clients) -> None:
    await fill(fleet)
    one, other = await clients(), await clients()
    assert (await one.post("/review/marks", json={"items": [1, 2, 99]})).json() == {"items": [1, 2]}
    assert len((await one.get("/review/items")).json()["items"]) == 1
    assert len((await other.get("/review/items")).json()["items"]) == 3
    assert (await one.post("/review/marks", json={"items": [1], "reviewed": False})).json() == {"items": [1]}
    assert len((await one.get("/review/items")).json()["items"]) == 2
    view = {"query": "tab=missed&site=hull"}
    assert (await one.put("/review/views/Night%20shift", json=view)).json() == {"name": "Night shift", **view}
    assert (await one.get("/review/views")).json() == {"items": [{"name": "Night shift", **view}]}
    assert (await other.get("/review/views")).json() == {"items": []}
    assert (await one.delete("/review/views/Night%20shift")).status_code == 204
    assert (await one.delete("/review/views/Night%20shift")).status_code == 404


async def test_each_route_needs_its_scope(fleet: Fleet, clients) -> None:
    client = await clients(Scope.REVIEW_READ)
    assert (await client.get("/review/items")).status_code == 200
    refused = await client.post("/review/decisions", json={"items": [{"item": 1}], "decision": "real"})
    assert refused.json()["scope"] == "review:decide"
    assert (await client.post("/review/marks", json={"items": [1]})).json()["scope"] == "review:mark"


@pytest.fixture
async def person(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    """The routes for an operator of the site `hull`, as the guard of sessions leaves the request."""
    api = create_api(fleet.store, fleet.store, late_after_s=60.0)

    async def app(scope, receive, send) -> None:
        scope[SCOPE_KEY] = SignedIn("ben", UserRole.OPERATOR, ("hull",))
        await api(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api/api/v1") as client:
        yield client


async def test_an_account_of_a_site_sees_and_decides_items_of_its_site_alone(
    fleet: Fleet, person: httpx.AsyncClient
) -> None:
    await fill(fleet)
    async with fleet.store.writing() as connection:
        of_camera = update(devices).where(devices.c.device_id == CAMERA.device_id)
        await connection.execute(of_camera.values(site="hull"))
    (item,) = (await person.get("/review/items")).json()["items"]
    assert (item["device_id"], item["site"]) == (CAMERA.device_id, "hull")
    assert (await person.get("/review/counts")).json()["devices"] == {CAMERA.device_id: 1}
    assert (await person.get("/review/items/2")).status_code == 404
    other = {"items": [{"item": item["number"]}, {"item": 2}], "decision": "real"}
    assert (await person.post("/review/decisions", json=other)).json()["items"] == [2]
    assert (await person.post("/review/marks", json={"items": [2]})).json() == {"items": []}
    mine = await person.post("/review/decisions", json={"items": [{"item": item["number"]}], "decision": "real"})
    assert mine.json()["items"][0]["author"] == "ben"

"""Answers of the API: pages, filters, labels, ETags and problem details."""

import asyncio
import time
import uuid
from datetime import datetime

import httpx
import pytest

from cloud.moments import rfc3339
from cloud.notice_kinds import NoticeKind
from cloud.rollouts.phases import RolloutEvent
from cloud.rollouts.stages import Stage
from cloud.store.notices import Absences, Condition, follow
from cloud.store.releases import release
from cloud.store.removal import removals
from cloud.store.rollouts import begin, command
from shared.bundle import sign
from tests.cloud.console.filled_store import CAMERA, KEY, KINDS, SHUTTLE, Fleet, manifest
from tests.cloud.rest.conftest import MakeClient


def strings(value: object) -> set[str]:
    """Names of the members whose value is a text."""
    found = set()
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, str):
            found.add(str(key))
        elif isinstance(item, dict | list):
            found |= strings(item)
    return found


async def test_pages_follow_each_other_without_gap_or_repetition(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fleet.send_many(11, step_s=0.0)
    seen, query = [], {"size": "4"}
    while True:
        page = (await client.get("/verdicts", params=query)).json()
        seen += [item["sample_id"] for item in page["items"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
        await fleet.send(SHUTTLE)  # new verdicts do not shift a page
    assert len(seen) == len(set(seen)) == 11


async def test_filters_narrow_the_list(fleet: Fleet, client: httpx.AsyncClient) -> None:
    verdicts = [await fleet.send(kind, at_s=1000.0 + place) for place, kind in enumerate((SHUTTLE, CAMERA, SHUTTLE))]
    boundary = rfc3339(verdicts[1].judged_at_s)
    for query, expected in (
        ({"device": "camera-north"}, [1]),
        ({"modality": "tabular"}, [2, 0]),
        ({"text": "shuttle.csv"}, [2, 0]),
        ({"to": "1970-01-01T00:10:00Z"}, []),
        ({"from": "1970-01-01T01:00:00+01:00", "decision": verdicts[0].decision.value, "modality": "tabular"}, None),
    ):
        items = (await client.get("/verdicts", params=query)).json()["items"]
        if expected is not None:
            assert [item["sample_id"] for item in items] == [str(verdicts[place].sample_id) for place in expected]
        else:
            assert {item["decision"] for item in items} == {verdicts[0].decision.value}
    assert boundary.endswith("Z")


async def test_numbers_are_numbers_and_times_are_rfc_3339(fleet: Fleet, client: httpx.AsyncClient) -> None:
    verdict = await fleet.send(SHUTTLE, odd=True)
    detail = (await client.get(f"/verdicts/{verdict.sample_id}")).json()
    assert strings(detail) == {
        *("sample_id", "device_id", "source_id", "origin", "modality", "route", "decision", "reason", "bundle_id"),
        *("captured_at", "received_at", "judged_at", "calibration_id", "artefact", "analyzer", "name"),
    }
    assert datetime.fromisoformat(detail["judged_at"]).timestamp() == pytest.approx(verdict.judged_at_s, abs=1e-5)
    assert detail["cloud"]["p_value"] == verdict.p_value
    assert [item["analyzer"] for item in detail["opinions"]] == [item.analyzer for item in verdict.opinions]
    (item,) = (await client.get("/verdicts")).json()["items"]
    assert item.items() <= detail.items()


async def test_the_newest_label_counts_and_a_repeated_request_stores_nothing(fleet: Fleet, clients: MakeClient) -> None:
    client = await clients()
    sample_id = (await fleet.send(SHUTTLE)).sample_id
    path = f"/samples/{sample_id}/labels"
    key = {"Idempotency-Key": "one"}
    body = {"label": "false_alarm", "author": "Ada", "note": "a cable, not a crack ✔"}
    first = await client.post(path, json=body, headers=key)
    again = await client.post(path, json=body, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    reused = await client.post(path, json=body | {"label": "real"}, headers=key)
    assert (reused.status_code, reused.json()["type"]) == (422, "urn:vedette:problem:key-reused")
    assert (await (await clients()).post(path, json={"label": "real"}, headers=key)).status_code == 201
    history = (await client.get(path)).json()
    assert [(item["label"], item["author"], item["current"]) for item in history] == [
        ("real", "CI", True),
        ("false_alarm", "Ada", False),
    ]
    assert (await client.get("/labels", params={"current": "true"})).json()["items"] == history[:1]
    first_page = (await client.get("/labels", params={"size": 1})).json()
    rest = (await client.get("/labels", params={"size": 1, "cursor": first_page["next"]})).json()
    assert first_page["items"] + rest["items"] == history
    assert rest["next"] is None
    assert (await client.get("/verdicts")).json()["items"][0]["label"] == "real"
    assert (await client.get(f"/verdicts/{sample_id}")).json()["labels"] == history
    changes = (await client.get("/audit", params={"action": "label.added"})).json()["items"]
    assert [(item["actor"], item["subject"]) for item in changes] == [
        ("api:CI (t1)", str(sample_id)),
        ("api:CI (t0)", str(sample_id)),
    ]


async def test_the_same_label_sent_many_times_at_once_is_stored_once(fleet: Fleet, client: httpx.AsyncClient) -> None:
    path = f"/samples/{(await fleet.send(SHUTTLE)).sample_id}/labels"
    sent = [client.post(path, json={"label": "real"}, headers={"Idempotency-Key": "one"}) for _ in range(20)]
    statuses = sorted([response.status_code for response in await asyncio.gather(*sent)])
    assert statuses == [200] * 19 + [201]
    assert len((await client.get(path)).json()) == 1


async def test_an_unchanged_answer_is_not_sent_again(fleet: Fleet, client: httpx.AsyncClient) -> None:
    first = await client.get("/verdicts")
    tag = first.headers["etag"]
    for wanted in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        same = await client.get("/verdicts", headers={"If-None-Match": wanted})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
        assert "content-length" not in same.headers
    await fleet.send(SHUTTLE)
    changed = await client.get("/verdicts", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


async def everything(client: httpx.AsyncClient, path: str, **query: object) -> list[dict]:
    """The items of all pages of two."""
    items, cursor = [], ""
    while cursor is not None:
        page = (await client.get(path, params={"size": 2, "cursor": cursor, **query})).raise_for_status().json()
        items, cursor = items + page["items"], page["next"]
    return items


async def test_devices_are_paged_by_id(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fleet.heartbeat(SHUTTLE, 5000, "spool 81 % full")
    await fleet.leave_waiting(SHUTTLE)
    listed = await everything(client, "/devices")
    ids = [item["device_id"] for item in listed]
    assert ids == sorted(ids) == sorted(["press-7", *(kind.device_id for kind in KINDS)])
    shuttle = (await client.get("/devices/shuttle-a")).json()
    assert shuttle == listed[ids.index("shuttle-a")]
    assert shuttle["figures"]["samples_screened"] == 5000
    assert shuttle["figures"]["pending"] == 1
    assert shuttle["warnings"] == ["spool 81 % full"]
    assert datetime.fromisoformat(shuttle["heartbeat_at"]).timestamp() == pytest.approx(time.time(), abs=60)
    assert listed[ids.index("press-7")]["heartbeat_at"] is None
    assert (await client.get("/devices/nobody")).status_code == 404


async def test_bundles_and_rollouts_are_paged(fleet: Fleet, client: httpx.AsyncClient) -> None:
    second = sign(manifest(SHUTTLE, version=2), {"edge/note.json": b"2"}, KEY)
    entry = await fleet.registry.publish(second, make_current=False)
    await release(fleet.store, "shuttle", ["presses"], time.time())
    now_s = time.time()
    stages = (Stage(name="wave 50 %", percent=50), Stage(name="wave 100 %", percent=100))
    for reason in ("the first trial", "the second trial"):
        await begin(fleet.store, "shuttle", entry.bundle_id, stages, author="Ada", reason=reason, now_s=now_s)
        await command(fleet.store, "shuttle", RolloutEvent.BACK, author="Ada", reason=reason, now_s=now_s)
    listed = await everything(client, "/bundles")
    names = [(item["name"], item["version"], item["current"], item["groups"]) for item in listed]
    assert names == [
        *((name, 1, True, None) for name in ("artery", "bricks", "door")),
        ("shuttle", 1, True, ["presses"]),
        ("shuttle", 2, False, ["presses"]),
    ]
    assert await everything(client, "/bundles", name="shuttle") == listed[-2:]
    detail = (await client.get(f"/bundles/{entry.bundle_id}")).json()
    assert detail["manifest"]["input"]["channels"] == list(SHUTTLE.channels)
    assert listed[-1].items() <= detail.items()
    assert (await client.get("/bundles/none")).status_code == 404
    rollouts = await everything(client, "/rollouts")
    assert [item["history"][0]["reason"] for item in rollouts] == ["the second trial", "the first trial"]
    assert rollouts[0]["phase"] == "taken back"
    assert rollouts[0]["started_at"] == rfc3339(now_s)
    assert [stage["name"] for stage in rollouts[0]["stages"]] == ["wave 50 %", "wave 100 %"]
    assert await everything(client, "/rollouts", name="door") == []


UNKNOWN = uuid.UUID("00000000-0000-4000-8000-000000000000")


@pytest.mark.parametrize(
    ("path", "status", "kind", "named"),
    [
        (
            "/verdicts?sizes=5",
            422,
            "unknown-parameter",
            "known parameters: device, modality, route, decision, label, text",
        ),
        ("/verdicts?size=5&size=6", 422, "unknown-parameter", "more than once"),
        (f"/verdicts/{UNKNOWN}?device=x", 422, "unknown-parameter", "known parameters: none"),
        ("/verdicts?size=0", 422, "invalid-request", "query/size"),
        ("/verdicts?size=201", 422, "invalid-request", "query/size"),
        ("/verdicts?modality=smell", 422, "invalid-request", "query/modality"),
        ("/verdicts?from=yesterday", 422, "invalid-request", "2026-11-29T06:30:00Z"),
        ("/verdicts?from=2026-11-29T06:30:00+01:00", 422, "invalid-request", "%2B"),
        ("/verdicts?cursor=abc", 422, "invalid-cursor", "next"),
        ("/verdicts/7", 422, "invalid-request", "path/sample_id"),
        (f"/verdicts/{UNKNOWN}", 404, "not-found", str(UNKNOWN)),
        ("/audit?action=device.gone", 422, "invalid-request", "query/action"),
        ("/nothing", 404, "not-found", "Not Found"),
    ],
)
async def test_a_wrong_request_gets_problem_details(
    client: httpx.AsyncClient, path: str, status: int, kind: str, named: str
) -> None:
    response = await client.get(path)
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, problem["status"], problem["type"]) == (status, status, f"urn:vedette:problem:{kind}")
    assert problem["title"]
    assert named in problem["detail"]


async def test_a_cursor_fits_its_own_list_only(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fleet.send_many(3)
    cursor = (await client.get("/verdicts?size=1")).json()["next"]
    assert (await client.get("/verdicts", params={"cursor": cursor, "size": 2})).status_code == 200
    for path, filters in (("/verdicts", {"device": "shuttle-a"}), ("/labels", {}), ("/audit", {})):
        response = await client.get(path, params={"cursor": cursor, **filters})
        assert response.json()["type"] == "urn:vedette:problem:invalid-cursor"


async def test_a_sample_without_a_verdict_and_an_unknown_one(fleet: Fleet, client: httpx.AsyncClient) -> None:
    sample = await fleet.leave_waiting(SHUTTLE)
    waiting = await client.get(f"/verdicts/{sample.sample_id}")
    assert (waiting.status_code, waiting.json()["type"]) == (409, "urn:vedette:problem:not-judged")
    assert (await client.post(f"/samples/{sample.sample_id}/labels", json={"label": "missed"})).status_code == 201
    assert (await client.post(f"/samples/{UNKNOWN}/labels", json={"label": "missed"})).status_code == 404


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 422),
        (b"[]", 422),
        (b'{"label": "perhaps"}', 422),
        (b'{"label": "real", "autor": "Ada"}', 422),
        (b'{"label": "real", "author": ""}', 422),
        (b'{"label": "real", "note": "' + b"x" * 2001 + b'"}', 422),
        (b'{"label": "real", "note": "\\ud800"}', 422),
        (b'{"label": "real", "note": "' + b"x" * 70_000 + b'"}', 413),
        (b"\xff\xfe", 422),
    ],
)
async def test_a_wrong_label_is_refused(fleet: Fleet, client: httpx.AsyncClient, content: bytes, status: int) -> None:
    path = f"/samples/{(await fleet.send(SHUTTLE)).sample_id}/labels"
    response = await client.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert (await client.get(path)).json() == []


async def test_a_damaged_store_is_a_problem_without_its_path(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await client.get("/labels")
    async with fleet.store.writing() as connection:
        await connection.exec_driver_sql("DROP TABLE labels")
    response = await client.get("/labels")
    assert response.status_code == 503
    assert response.json()["type"] == "urn:vedette:problem:store-unavailable"
    assert "/" not in response.json()["detail"]


async def test_the_settings_of_a_group_are_replaced_as_a_whole(fleet: Fleet, client: httpx.AsyncClient) -> None:
    path = "/groups/presses/settings"
    assert (await client.get("/groups/presses")).status_code == 404
    assert (await client.put(path, json={"audit_share": 0.1, "max_samples_per_s": 5})).status_code == 200
    answer = await client.put(path, json={"audit_share": 0.2})
    assert answer.json() == {
        "audit_share": 0.2,
        "false_alarms_per_day": None,
        "max_samples_per_s": None,
        "max_bytes_per_s": None,
        "max_miss_rate": None,
    }
    assert (await client.get("/groups/presses")).json()["settings"] == answer.json()
    for body in ({"audit_share": 2}, {"audit_share": True}, {"other": 1}, []):
        assert (await client.put(path, json=body)).status_code == 422
    assert (await client.put("/groups/a%20b/settings", json={})).status_code == 422
    assert [item["group"] for item in (await client.get("/groups")).json()["items"]] == ["default", "presses"]
    changes = (await client.get("/audit", params={"subject": "presses"})).json()["items"]
    assert [item["actor"] for item in changes] == ["api:CI (t0)"] * 2


async def test_a_device_is_removed_with_its_data(fleet: Fleet, client: httpx.AsyncClient) -> None:
    answer = await client.delete("/devices/shuttle-a", params={"keep_verdicts": "true"})
    assert (answer.status_code, answer.json()) == (202, {"device_id": "shuttle-a", "keep_verdicts": True})
    assert (await client.get("/devices/shuttle-a")).status_code == 404
    assert (await client.delete("/devices/nothing")).status_code == 404
    assert [(item.device_id, item.keep_verdicts) for item in await removals(fleet.store)] == [("shuttle-a", True)]
    (change,) = (await client.get("/audit", params={"action": "device.removed"})).json()["items"]
    assert (change["actor"], change["details"]) == ("api:CI (t0)", {"keep_verdicts": True})


async def test_notices_are_listed_by_state_and_kind(fleet: Fleet, client: httpx.AsyncClient) -> None:
    silent = [Condition(NoticeKind.DEVICE_SILENT, f"press-{number}", "It is silent.") for number in range(3)]
    for present in (silent, silent[:2]):
        await follow(fleet.store, present, Absences(0.0), lambda _: {}, lambda _: (), now_s=time.time())
    found = await everything(client, "/notices")
    assert len(found) == 3
    for state, subjects in (("open", {"press-0", "press-1"}), ("closed", {"press-2"})):
        items = (await client.get("/notices", params={"state": state, "kind": "device_silent"})).json()["items"]
        assert {item["subject"] for item in items} == subjects
        assert all((item["closed_at"] is None) == (state == "open") for item in items)
    assert (await client.get("/notices", params={"kind": "rollout_halted"})).json()["items"] == []


async def test_verdicts_are_filtered_by_their_newest_label(fleet: Fleet, client: httpx.AsyncClient) -> None:
    verdicts = [await fleet.send(kind, at_s=1000.0 + place) for place, kind in enumerate((SHUTTLE, CAMERA) * 3)]
    for place, label in ((0, "real"), (2, "real"), (3, "real"), (4, "real"), (4, "unsure"), (5, "missed")):
        path = f"/samples/{verdicts[place].sample_id}/labels"
        assert (await client.post(path, json={"label": label})).status_code == 201
    for query, expected in (
        ({"label": "real"}, [3, 2, 0]),
        ({"label": "real", "device": SHUTTLE.device_id}, [2, 0]),
        ({"label": "real", "text": "shuttle.csv", "modality": "tabular"}, [2, 0]),
        ({"label": "unsure"}, [4]),
        ({"label": "false_alarm"}, []),
        ({"label": "missed", "modality": "tabular"}, []),
    ):
        found = await everything(client, "/verdicts", **query)
        assert [item["sample_id"] for item in found] == [str(verdicts[place].sample_id) for place in expected], query
        assert {item["label"] for item in found} <= {query["label"]}
    assert (await client.get("/verdicts", params={"label": "odd"})).status_code == 422


async def test_a_rollout_is_started_paused_and_taken_back(fleet: Fleet, client: httpx.AsyncClient) -> None:
    entry = await fleet.registry.publish(sign(manifest(SHUTTLE, 2), {"edge/note.json": b"2"}, KEY), make_current=False)
    limits = {"max_failed": 0.1, "max_alarmed": {"ratio": 3, "slack": 0.1}}
    body = {"name": "shuttle", "bundle_id": entry.bundle_id, "trial": "trial=shuttle-a", "limits": limits}
    started = await client.post("/rollouts", json=body | {"reason": "release"})
    assert started.status_code == 201, started.text
    assert started.json()["limits"]["max_alarmed"] == {"ratio": 3, "slack": 0.1}
    assert (await client.post("/rollouts", json=body)).json()["type"] == "urn:vedette:problem:rollout-refused"
    for action, phase in (("pause", "paused"), ("resume", "under way"), ("back", "taken back")):
        answer = await client.post("/rollouts/shuttle/actions", json={"action": action, "reason": "lunch"})
        assert (answer.status_code, answer.json()["phase"]) == (200, phase)
    assert (await client.post("/rollouts/shuttle/actions", json={"action": "back"})).status_code == 409
    (found,) = (await client.get("/rollouts")).json()["items"]
    assert [item["author"] for item in found["history"]] == ["api:CI (t0)"] * 4
    for wrong in ({"waves": "5"}, {"trial": "trial=unknown"}, {"limits": {"max_failed": 2}}, {"odd": 1}):
        assert (await client.post("/rollouts", json=body | wrong)).status_code == 422
    changes = (await client.get("/audit", params={"subject": entry.bundle_id})).json()["items"]
    assert {item["actor"] for item in changes if item["action"].startswith("rollout.")} == {"api:CI (t0)"}

"""The JSON and picture routes, without a browser."""

import re
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import numpy as np
import pytest
from sqlalchemy import delete, update

from cloud.console import create_app
from cloud.console.page import PART_HEADER
from cloud.evidence.pictures import UNSEEN_GREY
from cloud.serving.verdicts import undecided
from cloud.store.fleet import store_heartbeat
from cloud.store.judging import store_verdicts
from cloud.store.review.builder import build_items
from cloud.store.schema import payloads, samples
from cloud.words import NO_FIGURE
from shared.images import decode_image
from shared.samples import ImageCrop, Region
from shared.status import Heartbeat, RunningBundle
from tests.cloud.console.filled_store import ARTERY, CAMERA, SHUTTLE, XSS, Fleet


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(fleet.store, fleet.registry)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
        yield client


async def test_pages_follow_each_other_without_gap_or_repetition(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fleet.send_many(11, step_s=0.0)
    seen: list[str] = []
    query = {"size": "4"}
    for _ in range(3):
        page = (await client.get("/api/verdicts", params=query)).json()
        seen += [row["sample_id"] for row in page["verdicts"]]
        query["before"] = page["older"]
    assert page["older"] is None
    assert len(seen) == len(set(seen)) == 11
    back = (await client.get("/api/verdicts", params={"size": "4", "after": page["newer"]})).json()
    assert [row["sample_id"] for row in back["verdicts"]] == seen[4:8]


async def test_the_help_of_each_page_explains_its_words(fleet: Fleet, client: httpx.AsyncClient) -> None:
    sample = await fleet.send(SHUTTLE)
    pages = (
        "/",
        "/verdicts",
        f"/verdict/{sample.sample_id}",
        "/devices",
        "/device/shuttle-a",
        "/notices",
        "/bundle/none",
    )
    for path in pages:
        assert (path, '<dl class="v-glossary">' in (await client.get(path)).text) == (path, True)


async def test_only_parts_of_pages_have_the_mark_without_which_no_script_shows_them(
    fleet: Fleet, client: httpx.AsyncClient
) -> None:
    sample = await fleet.send(SHUTTLE)
    for path in ("list", "filters", "devices", f"verdict/{sample.sample_id}", f"verdict/{uuid.uuid4()}", "bundle/none"):
        answer = await client.get(f"/parts/{path}")
        assert (path, PART_HEADER in answer.headers) == (path, True)
        assert answer.headers["content-type"].startswith("text/html")
    for path in ("/", "/devices", "/nothing", "/parts/nothing", "/parts/new", f"/verdict/{sample.sample_id}"):
        assert (path, PART_HEADER in (await client.get(path)).headers) == (path, False)


async def test_filters_narrow_the_list(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fleet.send_many(9)
    await fleet.send(CAMERA, origin="100%_odd.png", odd=True)
    for query, matches in (
        ({"device": "camera-north"}, lambda row: row["device_id"] == "camera-north"),
        ({"modality": "series"}, lambda row: row["modality"] == "series"),
        ({"decision": "anomalous"}, lambda row: row["decision"] == "anomalous"),
        ({"route": "audit"}, lambda row: row["route"] == "audit"),
        ({"text": "100%_ODD"}, lambda row: row["origin"] == "100%_odd.png"),
        ({"until_s": str(time.time() - 30)}, lambda row: row["judged_at_s"] < time.time() - 30),
    ):
        rows = (await client.get("/api/verdicts", params=query)).json()["verdicts"]
        assert rows, query
        assert all(matches(row) for row in rows), query
    # SQL wildcards count as plain characters here.
    assert (await client.get("/api/verdicts", params={"text": "100_%odd"})).json()["verdicts"] == []


@pytest.mark.parametrize(
    "query",
    ["modality=smell", "size=0", "size=5000", "before=x", "before=nan:1", "before=1.0:1&after=1.0:1", "since_s=inf"],
)
async def test_a_wrong_question_gets_an_answer_that_says_so(client: httpx.AsyncClient, query: str) -> None:
    response = await client.get(f"/api/verdicts?{query}")
    assert response.status_code == 422
    assert response.json()["detail"]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("verdicts?sizes=5", "known parameters: device, modality, route, decision, text, since_s, until_s, before"),
        ("verdicts/00000000-0000-4000-8000-000000000000?device=x", "known parameters: none"),
        ("devices?since_s=1", "known parameters: after, size"),
        ("bundles/none-1?bogus=1", "known parameters: none"),
        ("fleet?x=", "unknown parameter 'x'"),
        ("verdicts?size=5&size=6", "more than once"),
    ],
)
async def test_an_unknown_parameter_is_refused_with_the_known_ones(
    client: httpx.AsyncClient, path: str, named: str
) -> None:
    response = await client.get(f"/api/{path}")
    assert response.status_code == 422
    assert named in response.json()["detail"]


async def test_the_api_gives_numbers_as_numbers(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fleet.heartbeat(SHUTTLE, 5000)
    sample_id = (await fleet.send(SHUTTLE, odd=True)).sample_id
    figures = (await client.get("/api/fleet")).json()
    assert figures["screened"] >= 5000
    assert not [name for name, value in figures.items() if isinstance(value, str)]
    devices = (await client.get("/api/devices")).json()
    counters = [each["figures"] for each in devices]
    assert figures["sent"] == sum(each["samples_forwarded"] + each["samples_audited"] for each in counters)
    device = next(each for each in devices if each["device_id"] == "shuttle-a")
    assert device["figures"]["samples_screened"] == 5000
    assert (device["figures"]["samples_forwarded"], device["figures"]["samples_audited"]) == (125, 50)
    assert device["figures"]["sent_share"] == 175 / 5000
    assert not [name for name, value in device["figures"].items() if isinstance(value, str)]
    detail = (await client.get(f"/api/verdicts/{sample_id}")).json()
    assert isinstance(detail["edge_score"], float)
    assert isinstance(detail["payload_bytes"], int)
    assert all(isinstance(opinion["score"], float) for opinion in detail["opinions"])


async def test_detail_holds_both_opinions_and_what_to_draw(fleet: Fleet, client: httpx.AsyncClient) -> None:
    kinds = {}
    for kind in (SHUTTLE, ARTERY, CAMERA):
        verdict = await fleet.send(kind, odd=True)
        detail = (await client.get(f"/api/verdicts/{verdict.sample_id}")).json()
        kinds[detail["kind"]] = detail
        assert [opinion["analyzer"] for opinion in detail["opinions"]] == [item.analyzer for item in verdict.opinions]
        assert detail["fused"]["p_value"] == verdict.p_value
        assert detail["bundle_id"] == verdict.bundle_id
    largest = max(kinds["tabular"]["contributions"], key=lambda item: item["share"])
    assert kinds["tabular"]["features"][0]["name"] == largest["name"]
    assert kinds["series"]["plot"]["span"]
    assert kinds["image"]["cloud_map"]
    assert kinds["image"]["edge_map"]


async def test_a_sample_that_could_not_be_judged_has_no_p_value(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fleet.send(SHUTTLE, odd=True)
    sample = await fleet.leave_waiting(SHUTTLE)
    (waiting,) = await fleet.waiting()
    await store_verdicts(fleet.store, [(waiting, undecided(waiting, "bundle b cannot be loaded"))])
    (row,) = (await client.get("/api/verdicts", params={"decision": "undecided"})).json()["verdicts"]
    detail = (await client.get(f"/api/verdicts/{sample.sample_id}")).json()
    for view in (row, detail):
        assert view["fused"]["p_value"] is None
        assert view["fused"]["words"] == NO_FIGURE
        assert view["fused"]["rarity"] == 0
        assert view["reason"] == "bundle b cannot be loaded"
        assert view["edge"]["p_value"] > 0
    assert "could not judge it: review needed" in detail["headline"]
    assert "10¹²" not in str(row | detail)


async def test_an_undecided_crop_keeps_its_p_value(fleet: Fleet, client: httpx.AsyncClient) -> None:
    sample = await fleet.leave_waiting(CAMERA)
    (waiting,) = await fleet.waiting()
    verdict = replace(undecided(waiting, "only a crop"), p_value=0.4)
    await store_verdicts(fleet.store, [(waiting, verdict)])
    detail = (await client.get(f"/api/verdicts/{sample.sample_id}")).json()
    assert detail["fused"]["p_value"] == 0.4
    assert "40" in detail["headline"]


async def test_a_sample_that_waits_and_one_that_is_unknown(fleet: Fleet, client: httpx.AsyncClient) -> None:
    sample = await fleet.leave_waiting(CAMERA)
    assert (await client.get(f"/api/verdicts/{sample.sample_id}")).status_code == 409
    assert (await client.get(f"/api/verdicts/{uuid.uuid4()}")).status_code == 404
    assert (await client.get("/api/verdicts/nonsense")).status_code == 422
    assert (await client.get("/api/fleet")).json()["pending"] == 1
    waiting = await client.get(f"/media/{sample.sample_id}/thumbnail.png")
    assert waiting.status_code == 200
    assert waiting.headers["cache-control"] == "no-store"  # its map is still to come


async def test_pictures_are_cached_by_sample_id(fleet: Fleet, client: httpx.AsyncClient) -> None:
    sample_id = (await fleet.send(CAMERA, odd=True)).sample_id
    for name in ("thumbnail.png", "image.png", "cloud_map.png", "edge_map.png"):
        first = await client.get(f"/media/{sample_id}/{name}")
        assert first.status_code == 200
        assert first.headers["content-type"] == "image/png"
        assert "immutable" in first.headers["cache-control"]
        assert decode_image(first.content).size
        again = await client.get(f"/media/{sample_id}/{name}", headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304
        assert again.content == b""
    series = (await fleet.send(ARTERY, odd=True)).sample_id
    for _ in range(2):
        sparkline = await client.get(f"/media/{series}/thumbnail.svg")
        assert sparkline.headers["content-type"].startswith("image/svg+xml")
        assert b"<rect" in sparkline.content
    assert "default-src 'none'" in sparkline.headers["content-security-policy"]


async def test_a_part_is_shown_where_it_lies_in_its_image(fleet: Fleet, client: httpx.AsyncClient) -> None:
    whole = (await fleet.send(CAMERA, odd=True)).sample_id
    height, width, _ = decode_image((await client.get(f"/media/{whole}/image.png")).content).shape
    part = ImageCrop(2 * height, 3 * width, Region(height, width, height, width))
    sample_id = (await fleet.send(CAMERA, odd=True, part=part)).sample_id
    detail = (await client.get(f"/api/verdicts/{sample_id}")).json()
    assert "Only a crop" in detail["problem"]
    assert (detail["height_px"], detail["width_px"]) == (2 * height, 3 * width)
    pixels = decode_image((await client.get(f"/media/{sample_id}/image.png")).content)
    assert pixels.shape == (2 * height, 3 * width, 3)
    assert np.unique(pixels[:height]).tolist() == [UNSEEN_GREY]
    assert pixels[height:, width : 2 * width].std() > 5
    assert np.unique(pixels[:, 2 * width :]).tolist() == [UNSEEN_GREY]


async def test_a_picture_that_there_is_not(fleet: Fleet, client: httpx.AsyncClient) -> None:
    row = (await fleet.send(SHUTTLE)).sample_id
    for path in (f"{row}/thumbnail.png", f"{row}/cloud_map.png", f"{uuid.uuid4()}/image.png"):
        response = await client.get(f"/media/{path}")
        assert response.status_code == 404
        assert response.json()["detail"].endswith(".")


async def test_verdicts_outlive_their_payloads(fleet: Fleet, client: httpx.AsyncClient) -> None:
    sample_id = (await fleet.send(CAMERA, odd=True)).sample_id
    async with fleet.store.writing() as connection:
        await connection.execute(delete(payloads))
    detail = (await client.get(f"/api/verdicts/{sample_id}")).json()
    assert detail["kind"] == "none"
    assert "retention" in detail["problem"]
    assert (await client.get(f"/media/{sample_id}/image.png")).status_code == 410


async def test_a_damaged_payload_is_told_and_nothing_breaks(fleet: Fleet, client: httpx.AsyncClient) -> None:
    sample_id = (await fleet.send(CAMERA, odd=True)).sample_id
    async with fleet.store.writing() as connection:
        await connection.execute(update(payloads).values(data=b"\x89PNG\r\n\x1a\nnot really"))
    assert "cannot be shown" in (await client.get(f"/api/verdicts/{sample_id}")).json()["problem"]
    assert (await client.get(f"/media/{sample_id}/thumbnail.png")).status_code == 404


async def test_figures_that_are_no_numbers_still_make_json(fleet: Fleet, client: httpx.AsyncClient) -> None:
    sample_id = (await fleet.send(SHUTTLE)).sample_id
    async with fleet.store.writing() as connection:
        await connection.execute(update(samples).values(edge_score=float("inf"), edge_p_value=0.0))
    assert (await client.get("/api/verdicts")).json()["verdicts"][0]["edge"]["score"] is None
    assert (await client.get(f"/api/verdicts/{sample_id}")).status_code == 200


async def test_counters_as_large_as_a_device_can_send(fleet: Fleet, client: httpx.AsyncClient) -> None:
    for kind in (SHUTTLE, ARTERY, CAMERA):
        await fleet.heartbeat(kind, 2**63 // 1800)
    assert (await client.get("/api/fleet")).status_code == 200
    assert (await client.get("/api/devices")).status_code == 200


async def test_devices_come_in_pages_by_id(fleet: Fleet, client: httpx.AsyncClient) -> None:
    everything = [device["device_id"] for device in (await client.get("/api/devices")).json()]
    found: list[str] = []
    while page := (await client.get("/api/devices", params={"after": (found or [""])[-1], "size": "2"})).json():
        assert len(page) <= 2
        found += [device["device_id"] for device in page]
    assert found == everything == sorted(everything)


async def test_a_device_takes_little_room_whatever_it_reports(fleet: Fleet, client: httpx.AsyncClient) -> None:
    long = "x" * 5000
    running = tuple(RunningBundle(source_id=f"s{n}{long}", bundle_name=long, state=long) for n in range(500))
    await store_heartbeat(
        fleet.store, SHUTTLE.device_id, Heartbeat(running=running, warnings=(long,) * 400, agent_version=long)
    )
    answer = await client.get("/api/devices", params={"after": "press-7", "size": "1"})
    (device,) = answer.json()
    assert device["device_id"] == "shuttle-a"
    assert len(answer.content) < 40_000
    assert device["warnings"][-1] == "384 more warnings are not shown."


async def test_devices_say_how_they_fare(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fleet.heartbeat(SHUTTLE, 1000, "spool full: 12 samples dropped", dropped=12)
    await fleet.send(SHUTTLE, odd=True)
    found = {device["device_id"]: device for device in (await client.get("/api/devices")).json()}
    assert found["shuttle-a"]["health"] == "warning"
    assert found["shuttle-a"]["alarming"] == ["Dropped"]
    assert found["shuttle-a"]["decisions"]["anomalous"] == 1
    assert found["shuttle-a"]["running"][0]["state"] == "current"
    assert found["camera-north"]["health"] == "healthy"
    assert found["press-7"]["health"] == "never seen"
    assert "vedette edge run" in found["press-7"]["advice"]


@pytest.mark.parametrize(
    ("states", "health"),
    [
        (("running", "waiting for a bundle"), "waiting"),
        (("ended", "ended"), "ended"),
        (("ended", "failed"), "failed"),
        (("running", "ended"), "warning"),
        (("running", "differs from training"), "warning"),
    ],
)
async def test_a_device_whose_sources_do_not_screen_is_not_healthy(
    fleet: Fleet, client: httpx.AsyncClient, states: tuple[str, ...], health: str
) -> None:
    running = tuple(RunningBundle(source_id=f"s{number}", bundle_name="b", state=s) for number, s in enumerate(states))
    await store_heartbeat(fleet.store, SHUTTLE.device_id, Heartbeat(running=running, warnings=("source s1: ...",)))
    found = {device["device_id"]: device for device in (await client.get("/api/devices")).json()}["shuttle-a"]
    assert found["health"] == health
    assert [item["source_state"] for item in found["running"]] == list(states)
    assert found["running"][0]["state"] == "b is not published"


async def test_a_store_that_cannot_be_read_is_told(fleet: Fleet, client: httpx.AsyncClient) -> None:
    async with fleet.store.writing() as connection:
        await connection.exec_driver_sql("DROP TABLE anomaly_maps")
    response = await client.get(f"/media/{uuid.uuid4()}/cloud_map.png")
    assert response.status_code == 503
    assert "vedette cloud migrate" in response.json()["detail"]


async def test_every_answer_keeps_the_browser_to_itself(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fleet.send(CAMERA, origin=XSS)
    response = await client.get("/api/verdicts")
    assert response.headers["content-type"].startswith("application/json")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]


async def test_an_unknown_address_gets_a_page_of_the_console_with_a_link_back(client: httpx.AsyncClient) -> None:
    address = "/verdicts/%3Cscript%3Ewindow.pwned%3D1%3C%2Fscript%3E"
    page = await client.get(address, headers={"accept": "text/html,*/*"})
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    assert "no page at the address /verdicts/&lt;script&gt;" in page.text
    assert "<script>window.pwned" not in page.text
    assert '<a class="v-button" href="/">' in page.text
    assert 'type="module"' not in page.text  # no stream
    answer = await client.get("/api/nonsense")
    assert answer.status_code == 404
    assert "/api/nonsense" in answer.json()["detail"]


async def test_an_open_review_page_gets_only_the_rows_that_have_changed(
    fleet: Fleet, client: httpx.AsyncClient
) -> None:
    await fleet.send(SHUTTLE, odd=True)
    await build_items(fleet.store)
    page = "".join([(await client.get(f"/?tab={tab}")).text for tab in ("alarm", "suspicious")])
    number, mark = re.findall(r'r-row[^>]*data-item="(\d+)"[^>]*data-mark="([^"]*)"', page)[0]
    address = "/parts/review/changes?newest=0"
    assert (await client.get(f"{address}&shown={number}:{mark}")).json()["rows"] == {}
    assert list((await client.get(f"{address}&shown={number}:9.9.9.alarm")).json()["rows"]) == [number]
    for bad in ("-1:x", "x", ":", f"{2**70}:a", "9" * 40):
        assert (await client.get(address, params={"shown": bad})).json()["rows"] == {}

"""Page of the devices: addresses, words, 500 devices within a second, and the page of one device."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from cloud.console import create_app
from cloud.console.fleet.address import FleetAddress
from cloud.console.fleet.words import device_on_page
from cloud.device_health import HEALTH_ORDER
from cloud.devices import DeviceView, device_view, miss_view
from cloud.store.fleet import Place, set_place, set_title, store_heartbeat
from cloud.store.fleet_queries import DeviceRow
from shared.group_settings import GroupSettings
from shared.samples import Decision
from shared.status import DRIFT_WARNING, WAITING, Heartbeat, HeartbeatCounters, MissReport, RunningBundle
from tests.cloud.console.filled_store import CAMERA, SHUTTLE, Fleet, add_devices

NOW_S, LATE_S = 10_000.0, 60.0
ROW = DeviceRow(
    device_id="press-1",
    enrolled_at_s=0.0,
    certificate_expires_at_s=1e12,
    revoked_at_s=None,
    heartbeat_at_s=NOW_S,
    heartbeat=Heartbeat(),
    clock_offset_s=None,
    pending=0,
    decisions={},
    site="default",
    group="default",
)


def view_of(heartbeat: Heartbeat, **changes: object) -> DeviceView:
    row = replace(ROW, heartbeat=heartbeat, **changes)
    return device_view(row, {}, now_s=NOW_S, late_after_s=LATE_S)


def counted(**counters: int) -> Heartbeat:
    return Heartbeat(counters=HeartbeatCounters(**counters))


@pytest.mark.parametrize(
    ("counters", "health"),
    [
        ({"samples_screened": 283, "samples_alarmed": 283, "samples_forwarded": 283}, "flooding"),
        ({"samples_screened": 50_000, "samples_forwarded": 32_000}, "flooding"),
        ({"samples_screened": 50_000, "samples_forwarded": 2_500, "samples_alarmed": 5}, "healthy"),
        ({"samples_screened": 20, "samples_forwarded": 20}, "healthy"),  # too few to say
    ],
)
def test_a_device_that_forwards_far_more_than_a_screener_promises_floods(counters: dict[str, int], health: str) -> None:
    view = view_of(counted(**counters))
    assert view.health == health
    assert ("were forwarded" in view.advice) == (health == "flooding")


def test_states_are_in_words_that_name_the_bundle() -> None:
    waiting = Heartbeat(running=(RunningBundle(source_id="a", bundle_name="press", state=WAITING),))
    view = view_of(waiting)
    assert "waits for the bundle press" in view.advice
    assert device_on_page(view)["health_words"] == "idle: waits for press"
    two = RunningBundle(source_id="b", bundle_name="weld", state=WAITING)
    several = Heartbeat(running=(*waiting.running, two))
    assert device_on_page(view_of(several))["health_words"] == "idle: waits for press and 1 more"
    flood = counted(samples_screened=1000, samples_alarmed=1000)
    assert view_of(flood, heartbeat_at_s=NOW_S - 61).health == "silent"
    drifting = view_of(Heartbeat(warnings=(f"source a: the readings {DRIFT_WARNING}: heat",)))
    assert (drifting.health, "train a bundle" in drifting.advice) == ("drifting", True)
    assert HEALTH_ORDER[0] == "silent"


def test_the_address_holds_filters_order_and_page() -> None:
    address = FleetAddress.parse({"health": "silent", "site": "hull", "sort": "-sent", "page": "3", "text": "a"})
    assert FleetAddress.parse(dict(httpx.QueryParams(address.address(page=3).partition("?")[2]))) == address
    assert "page" not in address.address(health="")
    assert address.sorted_by("sent") == address.address(sort="sent")
    assert address.direction("sent") == "descending"
    assert address.direction("site") == ""
    query = address.to_query()
    assert (query.skip, query.order, query.is_descending) == (200, "sent", True)
    for values in (
        {"health": "x", "sort": "x", "page": "-1"},
        {"page": "9" * 40},
        {"page": "²"},
        {"sort": "--sent"},
        {"text": "\0"},
    ):
        assert FleetAddress.parse(values) == FleetAddress()


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(fleet.store, fleet.registry))
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
        yield client


async def test_the_page_is_complete_without_a_script(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fleet.heartbeat(CAMERA, 1000, "spool full: 12 samples dropped", dropped=12)
    await add_devices(fleet.store, "<b>odd")
    await set_title(fleet.store, SHUTTLE.device_id, "Radiator of bay <i>")
    text = (await client.get("/devices")).text
    order = [text.index(f'href="/device/{name}"') for name in ("press-7", CAMERA.device_id, SHUTTLE.device_id)]
    assert order == sorted(order)  # never seen, warning, healthy
    assert "spool full: 12 samples dropped" in text
    assert "Radiator of bay &lt;i&gt;" in text
    assert "<b>odd" not in text
    assert "&lt;b&gt;odd" in text
    alone = (await client.get("/parts/devices", params={"health": "warning"})).text
    assert CAMERA.device_id in alone
    assert SHUTTLE.device_id not in alone
    nobody = (await client.get("/devices", params={"health": "silent"})).text
    assert "No device matches." in nobody


async def test_500_devices_are_sorted_and_shown_within_a_second(fleet: Fleet, client: httpx.AsyncClient) -> None:
    names = [f"press-{number:03}" for number in range(500)]
    await add_devices(fleet.store, *names)
    for name in names[:20]:
        await store_heartbeat(fleet.store, name, counted(samples_screened=1000, samples_forwarded=700))
    started_s = time.perf_counter()
    text = (await client.get("/devices?sort=-sent")).text
    assert time.perf_counter() - started_s < 1.0
    assert text.count('<tr>\n<td class="c-health">') == 100
    assert "page 1 of 6" in text
    assert "<b>20</b> flooding" in text
    assert text.index("press-019") < text.index("camera-north"), "sorted over all devices"
    assert "press-499" not in text
    last = (await client.get("/devices?sort=-sent&page=6")).text
    assert last.count('<td class="c-health">') == 5


async def test_a_device_has_a_page_with_its_settings_audits_and_samples(
    fleet: Fleet, client: httpx.AsyncClient
) -> None:
    await fleet.send_many(24)
    for _ in range(3):
        await fleet.send(CAMERA, odd=False)
    await set_place(fleet.store, [CAMERA.device_id], Place("hull", "cameras"))
    beat = Heartbeat(settings=GroupSettings(audit_share=0.02), warnings=("<script>warn",))
    await store_heartbeat(fleet.store, CAMERA.device_id, beat)
    answer = await client.get(f"/device/{CAMERA.device_id}")
    text = answer.text.replace("\u00a0", " ")
    assert answer.status_code == 200
    for shown in (
        "site hull",
        "At most ",
        " audits",
        "0.02",
        "as in edge.toml",
        "samples that the device has sent",
        "line-2",
    ):
        assert shown in text, shown
    assert "<script>warn" not in text
    assert 'data-opens="revoke"' not in text, "a viewer changes nothing"
    unknown = await client.get("/device/%3Cb%3Enobody")
    assert (unknown.status_code, "<b>nobody" in unknown.text) == (404, False)
    part = await client.get(f"/parts/device/{CAMERA.device_id}?span=nonsense")
    assert 'aria-current="true">24 hours' in part.text


def test_the_bound_of_a_device_is_that_of_its_worst_source() -> None:
    counted = {Decision.NORMAL: 311, Decision.ANOMALOUS: 1}
    view = view_of(Heartbeat(running=(RunningBundle(source_id="old"),)), audits=counted)  # an older agent
    assert (view.missed.audits, view.missed.anomalous) == (312, 1)
    assert view.missed.at_most_share == pytest.approx(0.02484, abs=1e-4)
    good, poor = MissReport(audits=2000), MissReport(audits=500, anomalous=3, unknown=1, limit_words="x" * 900)
    running = (RunningBundle(source_id="a", missed=good), RunningBundle(source_id="b", missed=poor))
    stored = {Decision.NORMAL: 3000, Decision.ANOMALOUS: 3}
    view = view_of(Heartbeat(running=running), audits=stored)
    assert (view.missed.audits, view.missed.anomalous, view.missed.unknown) == (500, 3, 1)
    assert device_on_page(view)["running"][0]["missed_short"] == "≤\u00a00.19\u00a0%"
    assert len(view.running[1].limit_words) < 500
    unknown = RunningBundle(source_id="c", missed=MissReport())
    assert view_of(Heartbeat(running=(*running, unknown)), audits=stored).missed.at_most_share is None


@pytest.mark.parametrize("anomalous", [0, 1], ids=["hides anomalous audits", "invents normal audits"])
def test_a_device_cannot_report_a_better_bound_than_the_stored_audits_give(anomalous: int) -> None:
    counted = {Decision.NORMAL: 311, Decision.ANOMALOUS: 1}
    claim = RunningBundle(source_id="a", missed=MissReport(audits=10**9, anomalous=anomalous))
    assert view_of(Heartbeat(running=(claim,)), audits=counted).missed == miss_view(counted)

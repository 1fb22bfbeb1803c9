"""Devices on their page: those that need somebody first, in words, in pages that leave none out."""

from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from cloud.console import create_app
from cloud.console.fleet import device_list
from cloud.console.fleet.device_list import device_page
from cloud.devices import HEALTH_ORDER, HEALTH_WORDS, DeviceView, device_view
from cloud.store.fleet_queries import DeviceRow
from shared.status import WAITING, Heartbeat, HeartbeatCounters, RunningBundle
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


def test_a_waiting_device_names_its_bundle_and_a_silent_one_is_no_flood() -> None:
    waiting = Heartbeat(running=(RunningBundle(source_id="a", bundle_name="press", state=WAITING),))
    assert "waits for the bundle press" in view_of(waiting).advice
    flood = counted(samples_screened=1000, samples_alarmed=1000)
    assert view_of(flood, heartbeat_at_s=NOW_S - 61).health == "silent"
    assert set(HEALTH_WORDS) >= {"silent", "waiting", "ended", "failed", "flooding", "healthy"}


def test_pages_hold_every_device_once_the_worst_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_list, "DEVICES_ON_PAGE", 3)
    devices = [
        view_of(Heartbeat(), device_id=f"d{number}", heartbeat_at_s=NOW_S - (61 if number % 3 == 2 else 0))
        for number in range(8)
    ]
    seen: list[str] = []
    skip = 0
    while True:
        page = device_page(devices, health="", after="", skip=skip)
        seen += [device["device_id"] for device in page.devices]
        if not page.more:
            break
        skip = int(parse_qs(urlsplit(page.more).query)["skip"][0])
    assert seen == ["d2", "d5", "d0", "d1", "d3", "d4", "d6", "d7"]
    assert [(count.health, count.count) for count in page.counts] == [("silent", 2), ("healthy", 6)]
    silent = device_page(devices, health="silent", after="", skip=0)
    assert [device["device_id"] for device in silent.devices] == ["d2", "d5"]


def test_a_larger_fleet_is_sorted_in_parts_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_list, "MAX_SORTED", 4)
    devices = [view_of(Heartbeat(), device_id=f"d{number}") for number in range(5)]
    page = device_page(devices, health="", after="", skip=0)
    assert page.is_part
    assert page.total == 4
    assert page.next_part == "/devices?after=d3"


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(fleet.store, fleet.registry))
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
        yield client


async def test_the_page_is_complete_without_a_script(fleet: Fleet, client: httpx.AsyncClient) -> None:
    await fleet.heartbeat(CAMERA, 1000, "spool full: 12 samples dropped", dropped=12)
    await add_devices(fleet.store, "<b>odd")
    text = (await client.get("/devices")).text
    order = [text.index(f'title="{name}"') for name in ("press-7", CAMERA.device_id, SHUTTLE.device_id)]
    assert order == sorted(order)  # never seen, warning, healthy
    assert "spool full: 12 samples dropped" in text
    assert "<b>odd" not in text
    assert "&lt;b&gt;odd" in text
    alone = (await client.get("/parts/devices", params={"health": "warning"})).text
    assert CAMERA.device_id in alone
    assert SHUTTLE.device_id not in alone
    nobody = (await client.get("/devices", params={"health": "silent"})).text
    assert "No device is in this state now." in nobody
    assert HEALTH_ORDER[0] == "silent"

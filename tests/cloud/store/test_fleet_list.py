"""List of the devices: sorted, filtered and counted by the store, on each back end."""

import time

import pytest
from sqlalchemy import insert, update

from cloud.device_health import HEALTH_ORDER
from cloud.store.fleet import Place, revoke, set_place, set_title, store_heartbeat
from cloud.store.fleet_list import ORDERS, FleetQuery, fleet_page
from cloud.store.schema import devices, heartbeats
from shared.status import DRIFT_WARNING, WAITING, Heartbeat, HeartbeatCounters, RunningBundle

NOW_S = time.time()
SILENT_SINCE_S = NOW_S - 60


def counted(**counters: int) -> Heartbeat:
    return Heartbeat(counters=HeartbeatCounters(**counters))


def sourced(*states: str) -> Heartbeat:
    return Heartbeat(running=tuple(RunningBundle(source_id="a", bundle_name="b", state=state) for state in states))


BEATS = {
    "failed": sourced("failed"),
    "flooding": counted(samples_screened=1000, samples_forwarded=640),
    "waiting": sourced(WAITING, "running"),
    "ended": sourced("ended"),
    "drifting": Heartbeat(warnings=(f"source a: the readings {DRIFT_WARNING}",)),
    "warning": Heartbeat(warnings=("clock: off",)),
    "healthy": counted(samples_screened=1000, samples_forwarded=10),
}


async def add(store, *device_ids: str) -> None:
    rows = [
        {"device_id": name, "enrolled_at_s": 0.0, "certificate_serial": "1", "certificate_expires_at_s": 9e9}
        for name in device_ids
    ]
    async with store.writing() as connection:
        await connection.execute(insert(devices), rows)


@pytest.fixture
async def fleet(store):
    """One device in each state, beside two that were never seen."""
    await add(store, *(f"d-{health}" for health in (*BEATS, "silent", "revoked")))
    for health, beat in BEATS.items():
        await store_heartbeat(store, f"d-{health}", beat)
    for health in ("silent", "revoked"):
        await store_heartbeat(store, f"d-{health}", BEATS["healthy"])
    async with store.writing() as connection:
        await connection.execute(
            update(heartbeats).where(heartbeats.c.device_id == "d-silent").values(received_at_s=NOW_S - 61)
        )
    await revoke(store, "d-revoked")
    return store


async def ids(store, **query) -> list[str]:
    async with store.reading() as connection:
        page = await fleet_page(connection, FleetQuery(**query), silent_since_s=SILENT_SINCE_S)
    return [row.device_id for row in page.rows]


async def test_the_worst_come_first_and_each_state_is_counted(fleet) -> None:
    expected = [
        name for health in HEALTH_ORDER for name in (["one", "two"] if health == "never seen" else [f"d-{health}"])
    ]
    assert await ids(fleet) == expected
    async with fleet.reading() as connection:
        page = await fleet_page(connection, FleetQuery(health="silent"), silent_since_s=SILENT_SINCE_S)
    assert [row.device_id for row in page.rows] == ["d-silent"]
    assert page.matching == 1
    assert dict(page.by_health) == {health: 2 if health == "never seen" else 1 for health in HEALTH_ORDER}


async def test_pages_leave_none_out(fleet) -> None:
    everything = await ids(fleet)
    in_pages = [name for skip in range(0, 12, 4) for name in await ids(fleet, skip=skip, size=4)]
    assert in_pages == everything
    assert await ids(fleet, skip=1000) == []


async def test_every_order_sorts_all_devices_and_puts_missing_values_last(fleet) -> None:
    everything = sorted(await ids(fleet))
    for order in ORDERS:
        found = [await ids(fleet, order=order, is_descending=is_descending) for is_descending in (False, True)]
        assert all(sorted(names) == everything for names in found), order
    sent = await ids(fleet, order="sent", is_descending=True)
    assert sent[0] == "d-flooding"
    assert set(sent[-2:]) <= {"one", "two", *(f"d-{health}" for health in BEATS)}
    assert (await ids(fleet, order="seen"))[0] == "d-silent"
    assert (await ids(fleet, order="seen"))[-2:] == ["one", "two"]


async def test_filters_are_places_names_and_parts_of_ids(fleet) -> None:
    await set_place(fleet, ["d-ended", "one"], Place("hull", "presses"))
    await set_title(fleet, "two", "Press 100%_A")
    assert await ids(fleet, site="hull") == ["d-ended", "one"]
    assert await ids(fleet, group="presses", text="ONE") == ["one"]
    assert await ids(fleet, text="100%_a") == ["two"]
    assert await ids(fleet, text="%") == ["two"]
    assert await ids(fleet, text="nothing") == []
    async with fleet.reading() as connection:
        page = await fleet_page(connection, FleetQuery(text="one"), silent_since_s=SILENT_SINCE_S, sites=["hull"])
        other = await fleet_page(connection, FleetQuery(), silent_since_s=SILENT_SINCE_S, sites=["elsewhere"])
    assert (page.sites, page.groups) == (("hull",), ("presses",))
    assert (other.matching, other.sites) == (0, ())


async def test_counters_beyond_64_bits_do_not_break_the_order(fleet) -> None:
    most = 2**64 - 1
    await store_heartbeat(fleet, "one", counted(samples_screened=most, samples_forwarded=most, samples_audited=most))
    assert (await ids(fleet, order="sent", is_descending=True))[0] == "one"

"""History of heartbeats: one row a slot whatever a device sends, thinned later, gone with the device."""

import time

import pytest
from sqlalchemy import insert, select

from cloud.store import heartbeat_history as history_module
from cloud.store.fleet import store_heartbeat
from cloud.store.heartbeat_history import SLOT_S, history_of, thin_history
from cloud.store.removal import begin_removal, delete_data
from cloud.store.schema import HEARTBEAT_INTEGERS, heartbeat_history
from shared.status import DRIFT_WARNING, Heartbeat, HeartbeatCounters


def beat(screened: int, *warnings: str) -> Heartbeat:
    return Heartbeat(counters=HeartbeatCounters(samples_screened=screened), spool_samples=3, warnings=warnings)


async def points(store, device_id: str = "one", since_s: float = 0.0):
    async with store.reading() as connection:
        return await history_of(connection, device_id, since_s)


async def test_a_slot_keeps_its_first_heartbeat_only(store, monkeypatch: pytest.MonkeyPatch) -> None:
    start_s = 1000 * SLOT_S
    for offset_s, screened in ((0.0, 10), (1.0, 11), (SLOT_S - 1, 20), (SLOT_S, 30), (3 * SLOT_S, 2**64 - 1)):
        monkeypatch.setattr(time, "time", lambda at_s=start_s + offset_s: at_s)
        await store_heartbeat(store, "one", beat(screened, f"the readings {DRIFT_WARNING}"))
    found = await points(store)
    assert [point.counters.samples_screened for point in found] == [10, 30, 2**63 - 1]
    assert {(point.health, point.is_drifting, point.spool_samples) for point in found} == {("drifting", True, 3)}
    assert found[0].certificate_expires_at_s == 9e9
    assert [point.received_at_s for point in await points(store, since_s=start_s + SLOT_S)] == [
        start_s + SLOT_S,
        start_s + 3 * SLOT_S,
    ]
    assert await points(store, "two") == []


async def add_rows(store, slots: range, device_id: str = "one") -> None:
    zeros = dict.fromkeys(HEARTBEAT_INTEGERS, 0)
    state = {"health": "healthy", "is_drifting": False, "certificate_expires_at_s": 9e9}
    rows = [{"device_id": device_id, "slot": slot, "received_at_s": slot * SLOT_S, **zeros, **state} for slot in slots]
    async with store.writing() as connection:
        await connection.execute(insert(heartbeat_history), rows)


async def test_older_rows_are_thinned_to_one_an_hour_and_then_deleted(store) -> None:
    now_s = 100_000 * SLOT_S
    day = 288  # slots
    await add_rows(store, range(100_000 - 3 * day, 100_000))
    await add_rows(store, range(100_000 - 13 * day, 100_000 - 13 * day + 12), "two")
    deleted = await thin_history(store, days=2.0, now_s=now_s)
    assert deleted == day - day // 12 + 12
    assert len(await points(store)) == 2 * day + 24
    assert await points(store, "two") == []
    assert await thin_history(store, days=2.0, now_s=now_s) == 0
    oldest = (await points(store))[: day // 12]
    assert all(point.received_at_s / SLOT_S % 12 == 0 for point in oldest)
    assert history_module.THINNED_TIMES * 2 < 13


async def test_the_history_goes_with_the_device(store) -> None:
    await add_rows(store, range(1000))
    await add_rows(store, range(5), "two")
    removal = await begin_removal(store, "one", keep_verdicts=True)
    assert await delete_data(store, removal, service_runs=False)
    async with store.reading() as connection:
        left = (await connection.execute(select(heartbeat_history.c.device_id).distinct())).scalars().all()
    assert left == ["two"]

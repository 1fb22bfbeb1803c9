"""Devices that run a bundle are counted once each, by group and artefact, on both back ends."""

import time

from cloud.store.bundle_devices import RunningCount, running_counts
from cloud.store.fleet import Place, set_place, store_heartbeat
from shared.status import Heartbeat, RunningBundle


async def test_devices_are_counted_by_group_and_site(store):
    def beat(*bundle_ids: str) -> Heartbeat:
        running = tuple(
            RunningBundle(source_id=f"s{place}", bundle_name="press", bundle_id=bundle_id, artefact="int8_openvino")
            for place, bundle_id in enumerate(bundle_ids)
        )
        return Heartbeat(running=running)

    async def counts(bundle_id: str, **where) -> list[RunningCount]:
        async with store.reading() as connection:
            return await running_counts(connection, bundle_id, **{"alive_since_s": 0.0, **where})

    await set_place(store, ["two"], Place(site="hull", group="presses"))
    await store_heartbeat(store, "one", beat("press-1-0", "press-1-0", "press-2-0"))  # two sources, one device
    await store_heartbeat(store, "two", beat("press-1-0"))
    default = RunningCount("default", "int8_openvino", 1, 1)
    presses = RunningCount("presses", "int8_openvino", 1, 1)
    assert await counts("press-1-0") == [default, presses]
    assert await counts("press-2-0") == [default]
    assert await counts("press-1-0", sites=("hull",)) == [presses]
    assert await counts("press-1-0", alive_since_s=time.time() + 60) == [
        RunningCount("default", "int8_openvino", 1, 0),
        RunningCount("presses", "int8_openvino", 1, 0),
    ]
    assert await counts("' OR 1=1 --") == []

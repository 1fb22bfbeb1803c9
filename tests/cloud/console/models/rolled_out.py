"""Bundles in a running service, and heartbeats of devices that run one of them."""

from typing import Any

from cloud.store import Store
from cloud.store.fleet import store_heartbeat
from cloud.store.registry import Registry
from shared.bundle import sign
from shared.status import Heartbeat, HeartbeatCounters, RunningBundle
from tests.cloud.console.filled_store import SHUTTLE, add_devices, manifest

NAMES = tuple(f"press-{number}" for number in range(1, 7))


async def publish(registry: Registry, key: Any, version: int, *, make_current: bool = False) -> str:
    """The id of a version of a bundle in the registry."""
    bundle = sign(manifest(SHUTTLE, version), {"edge/note.json": str(version).encode()}, key)
    return (await registry.publish(bundle, make_current=make_current)).bundle_id


async def beat(store: Store, bundle_id: str, screened: int, forwarded: int, *device_ids: str) -> None:
    """A heartbeat of each device."""
    counters = HeartbeatCounters(samples_screened=screened, samples_forwarded=forwarded)
    running = (
        RunningBundle(source_id="radiator", bundle_name="shuttle", bundle_id=bundle_id, artefact="int8_openvino"),
    )
    for device_id in device_ids:
        await store_heartbeat(store, device_id, Heartbeat(counters=counters, running=running))


async def begin_fleet(store: Store, registry: Registry, key: Any) -> tuple[str, str]:
    """Six devices that run a current bundle, beside a new one; both ids."""
    await add_devices(store, *NAMES)
    old = await publish(registry, key, 1, make_current=True)
    new = await publish(registry, key, 2)
    await beat(store, old, 20_000, 200, *NAMES)
    return old, new

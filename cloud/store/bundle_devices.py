"""Devices that run a bundle, counted by group from their newest heartbeats."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import String, cast, distinct, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.schema import devices, heartbeats
from cloud.store.sites import of_sites


@dataclass(frozen=True, slots=True)
class RunningCount:
    """Devices of a group that run a bundle with one artefact; `reporting` of them sent a heartbeat lately."""

    group: str
    artefact: str
    devices: int
    reporting: int


async def running_counts(
    connection: AsyncConnection, bundle_id: str, *, alive_since_s: float, sites: Collection[str] = ()
) -> list[RunningCount]:
    """Return the devices of these sites that run the bundle, by group and artefact; not revoked ones."""
    if connection.dialect.name == "postgresql":
        items = func.json_array_elements(heartbeats.c.running).table_valued("value", joins_implicitly=True)
        field = func.json_extract_path_text
        running_id, artefact = field(items.c.value, "bundle_id"), field(items.c.value, "artefact")
    else:
        items = func.json_each(heartbeats.c.running).table_valued("value", joins_implicitly=True)
        running_id, artefact = (func.json_extract(items.c.value, f"$.{name}") for name in ("bundle_id", "artefact"))
    artefact_text = cast(artefact, String).label("artefact")
    reporting = func.count(distinct(devices.c.device_id)).filter(heartbeats.c.received_at_s >= alive_since_s)
    query = (
        select(devices.c.group_name, artefact_text, func.count(distinct(devices.c.device_id)), reporting)
        .select_from(heartbeats.join(devices, devices.c.device_id == heartbeats.c.device_id))
        .where(running_id == bundle_id, devices.c.revoked_at_s.is_(None), *of_sites(sites))
        .group_by(devices.c.group_name, artefact_text)
        .order_by(devices.c.group_name, artefact_text)
    )
    return [RunningCount(*row) for row in await connection.execute(query)]

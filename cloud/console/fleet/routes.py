"""Page of the devices, those that need somebody first."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from cloud.console.fleet.device_list import MAX_SORTED, DeviceList, device_page
from cloud.console.guidance import no_device
from cloud.console.live import LiveFeed
from cloud.console.page import page, part
from cloud.console.rendering import render
from cloud.console.snapshots import Snapshots
from cloud.devices import read_devices
from cloud.store import Store

Health = Annotated[str, Query(max_length=32)]
DeviceId = Annotated[str, Query(max_length=64)]
Place = Annotated[int, Query(ge=0, le=MAX_SORTED)]


def fleet_router(store: Store, snapshots: Snapshots, feed: LiveFeed) -> APIRouter:
    """Return the page and its part."""
    router = APIRouter(include_in_schema=False)

    async def html(health: str, after: str, skip: int) -> str:
        async def read() -> DeviceList:
            async with store.reading() as connection:
                found = await read_devices(
                    connection,
                    now_s=time.time(),
                    late_after_s=snapshots.late_after_s,
                    after=after,
                    size=MAX_SORTED + 1,
                )
            return device_page(found, health=health, after=after, skip=skip)

        shown = await snapshots.shared(("devices", health, after, skip), read)
        empty = None if shown.devices or after or health else no_device()
        return render("fleet/devices.html", page=shown, empty=empty)

    @router.get("/devices")
    async def devices(health: Health = "", after: DeviceId = "", skip: Place = 0) -> HTMLResponse:
        """Answer with the page."""

        async def read() -> tuple[int, dict[str, Any]]:
            return 200, {"devices": await html(health, after, skip)}

        return await page(feed, "fleet/page.html", read)

    @router.get("/parts/devices")
    async def devices_part(health: Health = "", after: DeviceId = "", skip: Place = 0) -> HTMLResponse:
        """Answer with the devices alone."""
        return part(await html(health, after, skip))

    return router

"""Page of the devices, those that need somebody first."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from cloud.console.audience import Audience, Audiences
from cloud.console.fleet.device_list import MAX_SORTED, DeviceList, device_page
from cloud.console.guidance import no_device
from cloud.console.page import page, part
from cloud.console.rendering import render
from cloud.devices import read_devices
from cloud.store import Store

Health = Annotated[str, Query(max_length=32)]
DeviceId = Annotated[str, Query(max_length=64)]
Place = Annotated[int, Query(ge=0, le=MAX_SORTED)]


def fleet_router(store: Store, audiences: Audiences) -> APIRouter:
    """Return the page and its part."""
    router = APIRouter(include_in_schema=False)

    async def html(audience: Audience, health: str, after: str, skip: int) -> str:
        async def read() -> DeviceList:
            async with store.reading() as connection:
                found = await read_devices(
                    connection,
                    now_s=time.time(),
                    late_after_s=audience.snapshots.late_after_s,
                    after=after,
                    size=MAX_SORTED + 1,
                    sites=audience.sites,
                )
            return device_page(found, health=health, after=after, skip=skip)

        shown = await audience.snapshots.shared(("devices", health, after, skip), read)
        empty = None if shown.devices or after or health else no_device()
        return render("fleet/devices.html", page=shown, empty=empty)

    @router.get("/devices")
    async def devices(request: Request, health: Health = "", after: DeviceId = "", skip: Place = 0) -> HTMLResponse:
        """Answer with the page."""
        audience = audiences.of(request)

        async def read() -> tuple[int, dict[str, Any]]:
            return 200, {"devices": await html(audience, health, after, skip)}

        return await page(request, audience, "fleet/page.html", read)

    @router.get("/parts/devices")
    async def devices_part(
        request: Request, health: Health = "", after: DeviceId = "", skip: Place = 0
    ) -> HTMLResponse:
        """Answer with the devices alone."""
        return part(await html(audiences.of(request), health, after, skip))

    return router

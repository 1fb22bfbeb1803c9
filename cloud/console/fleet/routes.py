"""Page of the devices: one table in any order, those that need somebody first."""

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from cloud.console.audience import Audience, Audiences
from cloud.console.fleet.address import DEVICES_ON_PAGE, FleetAddress
from cloud.console.fleet.words import device_on_page
from cloud.console.guidance import no_device
from cloud.console.page import page, part
from cloud.console.rendering import render
from cloud.devices import HEALTH_WORDS, read_fleet
from cloud.store import Store

COLUMNS = (
    ("health", "Health", "", "State of the device, the worst first"),
    ("device", "Device", "device", "Name and id"),
    ("place", "Site", "site", "Site and group"),
    ("bundle", "Bundle", None, "Bundles that its sources run"),
    ("sent", "Sent", "sent", "Samples forwarded and audited, of those screened"),
    ("alarms", "Alarms", "alarms", "Local alarms, of the samples screened"),
    ("upload", "Upload", "upload", "Bytes sent, of the bytes screened"),
    ("spool", "Spool", "spool", "Samples that wait on the device for the link"),
    (
        "missed",
        "Missed",
        None,
        "Upper bound of the share of anomalies among the samples that stayed, from audits",
    ),
    ("anomalous", "Anomalous", "anomalous", "Anomalous verdicts on its samples"),
    ("seen", "Last seen", "seen", "Time since the last heartbeat"),
)
"""Columns of the table: name, heading, order (None: cannot be sorted), and explanation."""


def fleet_router(store: Store, audiences: Audiences) -> APIRouter:
    """Return the page and its part."""
    router = APIRouter(include_in_schema=False)

    async def html(audience: Audience, address: FleetAddress) -> str:
        async def read() -> str:
            times = {"now_s": time.time(), "late_after_s": audience.snapshots.late_after_s}
            async with store.reading() as connection:
                found, views = await read_fleet(connection, address.to_query(), **times, sites=audience.sites)
            is_empty = not found.matching and not address.filters
            return render(
                "fleet/devices.html",
                address=address,
                columns=COLUMNS,
                found=found,
                health_words=HEALTH_WORDS,
                devices=[device_on_page(device) for device in views],
                pages=max(1, -(-found.matching // DEVICES_ON_PAGE)),
                empty=no_device() if is_empty else None,
            )

        return await audience.snapshots.shared(("devices", address), read)

    @router.get("/devices")
    async def devices(request: Request) -> HTMLResponse:
        """Answer with the page."""
        audience, address = audiences.of(request), FleetAddress.parse(request.query_params)

        async def read() -> tuple[int, dict[str, Any]]:
            return 200, {"devices": await html(audience, address)}

        return await page(request, audience, "fleet/page.html", read)

    @router.get("/parts/devices")
    async def devices_part(request: Request) -> HTMLResponse:
        """Answer with the devices alone."""
        return part(await html(audiences.of(request), FleetAddress.parse(request.query_params)))

    return router

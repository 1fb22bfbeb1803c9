"""Routes of devices."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.devices import RunningView, read_devices
from cloud.moments import with_rfc3339
from cloud.rest.access import caller_of, needs
from cloud.rest.pages import CursorText, Size, next_cursor, page, read_cursor
from cloud.rest.problems import not_found
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.removal import begin_removal
from shared.errors import SettingsError


class DeviceItem(BaseModel):
    """One device; `figures` are its counters, `decisions` count the verdicts on its samples.

    `settings` are those in force on the device that its group can set, null if unknown.
    """

    device_id: str
    site: str
    group: str
    health: str
    advice: str
    heartbeat_at: str | None
    enrolled_at: str
    certificate_expires_at: str
    clock_offset_s: float | None
    settings: dict[str, float] | None
    agent_version: str
    figures: dict[str, int | float | None]
    decisions: dict[str, int]
    running: list[RunningView]
    warnings: list[str]


class DevicePage(BaseModel):
    """Page of devices by id; `next` is null on the last page."""

    items: list[DeviceItem]
    next: str | None


class RemovalItem(BaseModel):
    """Removal of a device under way: it has no access any more, and the service deletes its data."""

    device_id: str
    keep_verdicts: bool


def device_routes(store: Store, writing: Store, late_after_s: float) -> APIRouter:
    """Return the routes of devices."""
    router = APIRouter(tags=["devices"])

    async def read(connection: AsyncConnection, **which: Any) -> list[dict[str, Any]]:
        found = await read_devices(connection, now_s=time.time(), late_after_s=late_after_s, **which)
        return [with_rfc3339(device.model_dump(mode="json")) for device in found]

    @router.get("/devices", response_model=DevicePage, **needs(Scope.DEVICES_READ))
    async def list_devices(request: Request, cursor: CursorText = "", size: Size = 50) -> dict[str, Any]:
        """Return one page of the enrolled devices, by id."""
        key = read_cursor(request, cursor, str)
        async with store.reading() as connection:
            which = {"after": key[0] if key is not None else "", "sites": caller_of(request).sites}
            found = await read(connection, **which, size=size + 1)
        following = next_cursor(request, found[size - 1]["device_id"]) if len(found) > size else None
        return page(found[:size], following)

    @router.get("/devices/{device_id}", response_model=DeviceItem, **needs(Scope.DEVICES_READ, 404))
    async def one_device(device_id: str) -> dict[str, Any]:
        """Return one device; 404 for an unknown one."""
        async with store.reading() as connection:
            found = await read(connection, device_id=device_id)
        if not found:
            raise not_found(f"Device {device_id[:64]!r}")
        return found[0]

    @router.delete(
        "/devices/{device_id}", response_model=RemovalItem, status_code=202, **needs(Scope.DEVICES_WRITE, 404)
    )
    async def remove_device(
        request: Request,
        device_id: str,
        keep_verdicts: Annotated[bool, Query(description="Keep verdicts, labels and maps.")] = False,
    ) -> dict[str, Any]:
        """Revoke a device and delete its data, which goes on after the answer; 404 for an unknown one."""
        try:
            await begin_removal(writing, device_id, keep_verdicts=keep_verdicts, actor=caller_of(request).actor)
        except SettingsError:
            raise not_found(f"Device {device_id[:64]!r}") from None
        return {"device_id": device_id, "keep_verdicts": keep_verdicts}

    return router

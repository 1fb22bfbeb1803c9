"""Routes of devices."""

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.devices import MissView, RunningView, read_devices
from cloud.moments import with_rfc3339
from cloud.rest.access import caller_of, needs
from cloud.rest.pages import CursorText, Size, next_cursor, page, read_cursor
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.fleet import MAX_TITLE_CHARACTERS, PLACE_PATTERN, Place, revoke, set_place, set_title
from cloud.store.heartbeat_history import history_of
from cloud.store.removal import begin_removal
from shared.errors import SettingsError
from shared.status import HeartbeatCounters

MAX_HISTORY_HOURS = 24 * 400
PlaceName = Annotated[str, Field(pattern=PLACE_PATTERN, max_length=64)]


class DeviceItem(BaseModel):
    """One device; `figures` are its counters, `decisions` count the verdicts on its samples.

    `title` is its name for people, `missed` the bound that its audits give. `settings` are those in force on the
    device that its group can set, null if unknown.
    """

    device_id: str
    title: str
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
    missed: MissView
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


class DeviceChange(BaseModel):
    """Change of a device; null leaves a value as it is, and an empty `title` shows the id again."""

    model_config = ConfigDict(extra="forbid")

    title: Annotated[str, Field(max_length=MAX_TITLE_CHARACTERS)] | None = None
    site: PlaceName | None = None
    group: PlaceName | None = None


class HeartbeatItem(BaseModel):
    """Heartbeat of a device at one time; the counters are those since its state was made."""

    received_at: str
    counters: HeartbeatCounters
    spool_samples: int
    spool_bytes: int
    health: str
    is_drifting: bool
    certificate_expires_at: str


class HeartbeatList(BaseModel):
    """Heartbeats of a device, oldest first: one in 5 minutes, older ones one in an hour."""

    items: list[HeartbeatItem]


def device_routes(store: Store, writing: Store, late_after_s: float) -> APIRouter:
    """Return the routes of devices."""
    router = api_router("devices")

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

    @router.get("/devices/{device_id}/history", response_model=HeartbeatList, **needs(Scope.DEVICES_READ))
    async def history(
        device_id: str, hours: Annotated[float, Query(gt=0, le=MAX_HISTORY_HOURS, allow_inf_nan=False)] = 24.0
    ) -> dict[str, Any]:
        """Return the kept heartbeats of a device; none for an unknown one."""
        async with store.reading() as connection:
            points = await history_of(connection, device_id, time.time() - 3600 * hours)
        return {"items": [with_rfc3339(asdict(point) | {"counters": point.counters.model_dump()}) for point in points]}

    _add_changes(router, writing, one_device)
    return router


def _add_changes(router: APIRouter, writing: Store, one_device: Callable[[str], Awaitable[dict[str, Any]]]) -> None:
    @router.patch("/devices/{device_id}", response_model=DeviceItem, **needs(Scope.DEVICES_WRITE, *WITH_BODY, 404))
    async def change_device(request: Request, device_id: str, body: DeviceChange) -> dict[str, Any]:
        """Rename or move a device; 404 for an unknown one."""
        caller = caller_of(request)
        if caller.sites and body.site is not None and body.site not in caller.sites:
            raise Problem(403, "other-site", f"This account is for {', '.join(caller.sites)}: choose one of them.")
        with _unknown_as_problem(device_id):
            if body.title is not None:
                title = " ".join(body.title.replace("\0", " ").split())
                await set_title(writing, device_id, title, caller.actor)
            if (place := Place(body.site, body.group)).columns():
                await set_place(writing, [device_id], place, caller.actor)
        return await one_device(device_id)

    @router.post("/devices/{device_id}/revocation", response_model=DeviceItem, **needs(Scope.DEVICES_WRITE, 404))
    async def revoke_device(request: Request, device_id: str) -> dict[str, Any]:
        """End the access of a device at once, and delete its tokens; its data stays. 404 for an unknown one."""
        with _unknown_as_problem(device_id):
            await revoke(writing, device_id, caller_of(request).actor)
        return await one_device(device_id)

    @router.delete(
        "/devices/{device_id}", response_model=RemovalItem, status_code=202, **needs(Scope.DEVICES_WRITE, 404)
    )
    async def remove_device(
        request: Request,
        device_id: str,
        keep_verdicts: Annotated[bool, Query(description="Keep verdicts, labels and maps.")] = False,
    ) -> dict[str, Any]:
        """Revoke a device and delete its data, which goes on after the answer; 404 for an unknown one."""
        with _unknown_as_problem(device_id):
            await begin_removal(writing, device_id, keep_verdicts=keep_verdicts, actor=caller_of(request).actor)
        return {"device_id": device_id, "keep_verdicts": keep_verdicts}


@contextlib.contextmanager
def _unknown_as_problem(device_id: str) -> Iterator[None]:
    """Answer 404 for a device that is not enrolled."""
    try:
        yield
    except SettingsError:
        raise not_found(f"Device {device_id[:64]!r}") from None

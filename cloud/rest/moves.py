"""Routes of moves: many devices to another site or group at once, and back."""

import contextlib
import time
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cloud.device_health import HEALTH_ORDER
from cloud.rest.access import Caller, caller_of, needs
from cloud.rest.devices import PlaceName
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.fleet import Place
from cloud.store.fleet_list import MAX_TEXT_CHARACTERS, FleetQuery
from cloud.store.moves import (
    MatchesChangedError,
    Matching,
    Move,
    Mover,
    UnknownDevicesError,
    move_devices,
    undo_move,
)

MAX_NAMED = 500
MoveNumber = Annotated[int, Path(ge=1, le=2**63 - 1)]
DeviceId = Annotated[str, Field(min_length=1, max_length=64)]
Filter = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]


class MatchingBody(BaseModel):
    """All devices that match the filters of the list; `devices` is their number as the caller has seen it."""

    model_config = ConfigDict(extra="forbid")

    health: Annotated[str, Field(json_schema_extra={"enum": ["", *HEALTH_ORDER]})] = ""
    site: Filter = ""
    group: Filter = ""
    text: Filter = ""
    devices: int = Field(ge=0, le=10_000_000)


class MoveBody(BaseModel):
    """Devices by id, or all that match, and where they go: a site, a group or both."""

    model_config = ConfigDict(extra="forbid")

    device_ids: list[DeviceId] = Field(default=[], max_length=MAX_NAMED)
    matching: MatchingBody | None = None
    site: PlaceName | None = None
    group: PlaceName | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> "MoveBody":
        if bool(self.device_ids) == (self.matching is not None):
            raise ValueError("give device_ids or matching, not both")
        if self.site is None and self.group is None:
            raise ValueError("give site, group or both")
        if self.matching is not None and self.matching.health not in ("", *HEALTH_ORDER):
            raise ValueError(f"health: one of {', '.join(HEALTH_ORDER)}")
        return self


class MoveItem(BaseModel):
    """A move: devices that were elsewhere before, and those that an undo left where they are."""

    move: int
    moved: list[str]
    skipped: list[str]


def move_routes(writing: Store, late_after_s: float) -> APIRouter:
    """Return the routes of moves; a device without a heartbeat for `late_after_s` seconds is silent."""
    router = api_router("devices")

    @router.post("/moves", response_model=MoveItem, status_code=201, **needs(Scope.DEVICES_WRITE, 404, 409, *WITH_BODY))
    async def move(request: Request, body: MoveBody) -> dict[str, Any]:
        """Move devices in one transaction; 404 if one is unknown, 409 if another number matches than was seen."""
        caller = caller_of(request)
        if caller.sites and body.site is not None and body.site not in caller.sites:
            raise Problem(403, "other-site", f"This account is for {', '.join(caller.sites)}: choose one of them.")
        which: list[str] | Matching = body.device_ids
        if body.matching is not None:
            filters = body.matching.model_dump(exclude={"devices"})
            which = Matching(FleetQuery(**filters), time.time() - late_after_s, body.matching.devices)
        with _problems():
            done = await move_devices(writing, which, Place(body.site, body.group), _mover(caller))
        return _item(done)

    @router.post("/moves/{move}/undo", response_model=MoveItem, **needs(Scope.DEVICES_WRITE, 404))
    async def undo(request: Request, move: MoveNumber) -> dict[str, Any]:
        """Take the devices of a move back; those that were moved again since stay. 404 for an unknown or undone one."""
        done = await undo_move(writing, move, _mover(caller_of(request)))
        if done is None:
            raise not_found(f"Move {move} that can be undone")
        return _item(done)

    return router


def _mover(caller: Caller) -> Mover:
    return Mover(caller.actor, caller.sites)


def _item(move: Move) -> dict[str, Any]:
    return {"move": move.number, "moved": list(move.moved), "skipped": list(move.skipped)}


@contextlib.contextmanager
def _problems() -> Iterator[None]:
    """Answer refusals of the block with problem details."""
    try:
        yield
    except UnknownDevicesError as error:
        raise Problem(404, "not-found", str(error)) from None
    except MatchesChangedError as error:
        raise Problem(409, "matches-changed", str(error)) from None

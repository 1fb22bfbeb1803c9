"""Routes of groups of devices and their settings."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel

from cloud.rest.access import caller_of, needs
from cloud.rest.problems import WITH_BODY, not_found
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.fleet import PLACE_PATTERN
from cloud.store.group_settings import GroupState, change_settings, group_states
from shared.group_settings import GroupSettings

GroupName = Annotated[str, Path(pattern=PLACE_PATTERN, max_length=64)]


class GroupItem(BaseModel):
    """One group; a setting that is null has the value of each device's own file.

    `devices` are those that are not revoked; `following` have the settings in force, `refusing` refused them.
    """

    group: str
    settings: GroupSettings
    devices: int
    following: int
    refusing: int


class GroupList(BaseModel):
    """All groups, by name."""

    items: list[GroupItem]


def group_routes(reading: Store, writing: Store) -> APIRouter:
    """Return the routes of groups."""
    router = APIRouter(tags=["groups"])

    async def states(request: Request) -> list[GroupState]:
        async with reading.reading() as connection:
            return await group_states(connection, caller_of(request).sites)

    @router.get("/groups", response_model=GroupList, **needs(Scope.GROUPS_READ))
    async def list_groups(request: Request) -> dict[str, Any]:
        """Return all groups that have a device or settings."""
        return {"items": [asdict(state) for state in await states(request)]}

    @router.get("/groups/{group}", response_model=GroupItem, **needs(Scope.GROUPS_READ, 404))
    async def one_group(request: Request, group: GroupName) -> dict[str, Any]:
        """Return one group; 404 for one without devices and settings."""
        for state in await states(request):
            if state.group == group:
                return asdict(state)
        raise not_found(f"Group {group!r}")

    @router.put("/groups/{group}/settings", response_model=GroupSettings, **needs(Scope.GROUPS_WRITE, *WITH_BODY))
    async def put_settings(request: Request, group: GroupName, body: GroupSettings) -> GroupSettings:
        """Replace the settings of a group; a missing or null setting has the value of each device's own file."""
        return await change_settings(writing, group, body, replace=True, actor=caller_of(request).actor)

    return router

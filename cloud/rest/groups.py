"""Routes of groups of devices: names, settings, history and undo."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from cloud.moments import with_rfc3339
from cloud.rest.access import Caller, caller_of, needs
from cloud.rest.devices import PlaceName
from cloud.rest.group_forecast import forecast_for_history, read_forecast
from cloud.rest.pages import CursorText, Size, next_cursor, page, read_cursor
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.fleet import PLACE_PATTERN
from cloud.store.group_settings import (
    ChangeFacts,
    GroupChangedError,
    GroupState,
    change_settings,
    changes_of,
    group_sizes,
    group_states,
    settings_by_group,
    undo_change,
    version_of,
)
from cloud.store.groups import (
    GroupRefusedError,
    UnknownGroupError,
    bundles_of_groups,
    late_devices,
    make_group,
    remove_group,
    rename_group,
)
from cloud.store.replay.kept import KeptWeeks
from cloud.thresholds.figures import Forecast
from shared.group_settings import GroupSettings

GroupName = Annotated[str, Path(pattern=PLACE_PATTERN, max_length=64)]
IfMatch = Annotated[str, Header(max_length=64, description="ETag of the settings that the caller has seen.")]


class GroupItem(BaseModel):
    """One group; a setting that is null has the value of each device's own file.

    `devices` are those that are not revoked; `following` have the settings in force, `refusing` refused them. `version`
    is the number of the newest change of the settings, made at `changed_at`; 0 and null before the first one.
    """

    group: str
    settings: GroupSettings
    devices: int
    following: int
    refusing: int
    version: int
    changed_at: str | None


class LateItem(BaseModel):
    """Device that does not report the settings of its group in time, and why."""

    device_id: str
    reason: str


class GroupDetail(GroupItem):
    """One group with the ids of its current bundles, and its devices that do not report its settings in time."""

    bundles: list[str]
    late: list[LateItem]


class GroupList(BaseModel):
    """All groups, by name."""

    items: list[GroupItem]


class GroupBody(BaseModel):
    """Name of a group."""

    model_config = ConfigDict(extra="forbid")

    group: PlaceName


class UndoBody(BaseModel):
    """Change to take back; it must be the newest one of the group."""

    model_config = ConfigDict(extra="forbid")

    change: int = Field(ge=1, le=2**63 - 1)


class ChangeItem(BaseModel):
    """One change of the settings of a group; `undoes` is the change that it took back.

    `forecast` holds the expected figures, null if there was none; `outcome` those of the day after the change, null
    before they are known.
    """

    number: int
    at: str
    actor: str
    before: GroupSettings
    after: GroupSettings
    forecast: dict[str, Any] | None
    outcome: dict[str, Any] | None
    undoes: int | None


class ChangePage(BaseModel):
    """Page of changes, newest first; `next` is null on the last page."""

    items: list[ChangeItem]
    next: str | None


def group_routes(reading: Store, writing: Store, late_after_s: float) -> APIRouter:
    """Return the routes of groups; a device without a heartbeat for `late_after_s` seconds is silent."""
    router = api_router("groups")
    _add_names(router, writing)
    kept_weeks = KeptWeeks()
    _add_settings(router, reading, writing, kept_weeks)
    _add_history(router, reading, writing)

    @router.get("/groups", response_model=GroupList, **needs(Scope.GROUPS_READ))
    async def list_groups(request: Request) -> dict[str, Any]:
        """Return all groups that were made, or have a device or settings."""
        async with reading.reading() as connection:
            return {"items": [_item(state) for state in await group_states(connection, caller_of(request).sites)]}

    @router.get("/groups/{group}", response_model=GroupDetail, **needs(Scope.GROUPS_READ, 404))
    async def one_group(request: Request, group: GroupName) -> dict[str, Any]:
        """Return one group; 404 for an unknown one."""
        sites = caller_of(request).sites
        async with reading.reading() as connection:
            state = next((each for each in await group_states(connection, sites) if each.group == group), None)
            if state is None:
                raise not_found(f"Group {group!r}")
            late = await late_devices(connection, state, time.time(), late_after_s=late_after_s, sites=sites)
            bundles = await bundles_of_groups(connection, [group])
        return _item(state) | {"bundles": bundles[group], "late": [asdict(each) for each in late]}

    @router.get("/groups/{group}/forecast", response_model=Forecast, **needs(Scope.GROUPS_READ, 404))
    async def forecast(
        request: Request,
        group: GroupName,
        false_alarms_per_day: Annotated[float | None, Query(ge=0, le=1e6)] = None,
        max_samples_per_s: Annotated[float | None, Query(ge=0, le=1e6)] = None,
    ) -> Forecast:
        """Return what the last week would have been with these settings; a missing one stays as it is.

        404 for a group without devices.
        """
        asked = {"false_alarms_per_day": false_alarms_per_day, "max_samples_per_s": max_samples_per_s}
        proposed = GroupSettings.checked(asked)
        sites = caller_of(request).sites
        found = await read_forecast(reading, group, proposed, time.time(), sites, kept_weeks)
        if found is None:
            raise not_found(f"Group {group!r} with devices")
        return found

    return router


def _add_names(router: APIRouter, writing: Store) -> None:
    @router.post("/groups", response_model=GroupBody, status_code=201, **needs(Scope.GROUPS_WRITE, 409, *WITH_BODY))
    async def add_group(request: Request, body: GroupBody) -> GroupBody:
        """Make a group without devices; 409 if there is one of that name."""
        with _problems(body.group):
            await make_group(writing, body.group, caller_of(request).actor)
        return body

    @router.patch("/groups/{group}", response_model=GroupBody, **needs(Scope.GROUPS_WRITE, 404, 409, *WITH_BODY))
    async def change_group(request: Request, group: GroupName, body: GroupBody) -> GroupBody:
        """Rename a group with its devices, tokens, settings, history and bundles; 409 if the name is taken."""
        with _problems(group):
            await rename_group(writing, group, body.group, caller_of(request).actor)
        return body

    @router.delete("/groups/{group}", status_code=204, **needs(Scope.GROUPS_WRITE, 404, 409))
    async def delete_group(request: Request, group: GroupName) -> None:
        """Remove a group with its settings and history; 409 if it has devices, or alone gets some bundles."""
        with _problems(group):
            await remove_group(writing, group, caller_of(request).actor)


def _add_settings(router: APIRouter, reading: Store, writing: Store, kept_weeks: KeptWeeks) -> None:
    @router.get("/groups/{group}/settings", response_model=GroupSettings, **needs(Scope.GROUPS_READ))
    async def get_settings(group: GroupName, response: Response) -> GroupSettings:
        """Return the settings of a group, none for an unknown one; their ETag is for If-Match of a change."""
        async with reading.reading() as connection:
            response.headers["ETag"] = tag_of(await version_of(connection, group))
            return (await settings_by_group(connection)).get(group, GroupSettings())

    @router.put("/groups/{group}/settings", response_model=GroupSettings, **needs(Scope.GROUPS_WRITE, 412, *WITH_BODY))
    async def put_settings(
        request: Request, response: Response, group: GroupName, body: GroupSettings, if_match: IfMatch = ""
    ) -> GroupSettings:
        """Replace the settings of a group; a missing or null setting has the value of each device's own file.

        With If-Match, 412 if somebody has changed them since. The forecast of the change is in the history.
        """
        caller = caller_of(request)
        version = _version(if_match)
        expected = await forecast_for_history(reading, group, body, time.time(), kept_weeks)
        with _problems(group):
            facts = ChangeFacts(caller.actor, version, expected)
            changed, changed_version = await change_settings(writing, group, body, replace=True, facts=facts)
        response.headers["ETag"] = tag_of(changed_version)
        return changed


def _add_history(router: APIRouter, reading: Store, writing: Store) -> None:
    @router.get("/groups/{group}/history", response_model=ChangePage, **needs(Scope.GROUPS_READ, 404))
    async def history(request: Request, group: GroupName, cursor: CursorText = "", size: Size = 50) -> dict[str, Any]:
        """Return one page of the changes of a group, newest first; 404 for a group that the account does not see."""
        key = read_cursor(request, cursor, int)
        async with reading.reading() as connection:
            await _check_seen(connection, caller_of(request), group)
            before = key[0] if key is not None else None
            found = await changes_of(connection, group, before=before, size=size + 1)
        items = [with_rfc3339(asdict(change)) for change in found[:size]]
        return page(items, next_cursor(request, found[size - 1].number) if len(found) > size else None)

    @router.post("/groups/{group}/undo", response_model=GroupSettings, **needs(Scope.GROUPS_WRITE, 412, *WITH_BODY))
    async def undo(request: Request, group: GroupName, body: UndoBody) -> GroupSettings:
        """Take back the newest change of a group; 412 if another one is the newest. The history keeps both."""
        with _problems(group):
            return await undo_change(writing, group, body.change, caller_of(request).actor)


def tag_of(version: int) -> str:
    """Return the ETag of the settings of a group."""
    return f'"{version}"'


def _version(if_match: str) -> int | None:
    """Return the version in an If-Match, None for a missing one and for "*"; raises Problem for any other text."""
    text = if_match.strip()
    if text in ("", "*"):
        return None
    digits = text.removeprefix('"').removesuffix('"')
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18 and text == f'"{digits}"'):
        raise Problem(412, "settings-changed", "If-Match: use the ETag of GET /groups/{group}/settings.")
    return int(digits)


def _item(state: GroupState) -> dict[str, Any]:
    item: dict[str, Any] = with_rfc3339(asdict(state))
    return item


async def _check_seen(connection: Any, caller: Caller, group: str) -> None:
    """Raise Problem for a group without a device of the sites of the caller."""
    if caller.sites and group not in await group_sizes(connection, caller.sites):
        raise not_found(f"Group {group!r}")


@contextlib.contextmanager
def _problems(group: str) -> Iterator[None]:
    """Answer refusals of the block with problem details."""
    try:
        yield
    except GroupChangedError as error:
        raise Problem(412, "settings-changed", str(error)) from None
    except UnknownGroupError:
        raise not_found(f"Group {group!r}") from None
    except GroupRefusedError as error:
        raise Problem(409, "group-refused", str(error)) from None

"""Routes of rollouts."""

import contextlib
import time
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from cloud.moments import with_rfc3339
from cloud.rest.access import caller_of, needs
from cloud.rest.pages import CursorText, Name, Size, next_cursor, page, read_cursor
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.routers import api_router
from cloud.rollouts.gates import GateFigures
from cloud.rollouts.limits import DEFAULT_LIMITS, RolloutLimits
from cloud.rollouts.phases import RolloutEvent
from cloud.rollouts.stage_devices import ListedDevice
from cloud.rollouts.stages import DEFAULT_STAGE_S, DEFAULT_STAGE_SAMPLES, DEFAULT_WAVES, parse_stages
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.registry import Registry
from cloud.store.rollout_view import view_of
from cloud.store.rollouts import StagedRollout, begin, command, group_trial, one_rollout, rollout_page
from shared.errors import BundleError, DataError, SettingsError

MAX_NUMBER = 2**63 - 1


class RolloutStep(StrEnum):
    """Action on a rollout that is under way or paused."""

    PAUSE = "pause"
    RESUME = "resume"
    BACK = "back"


class StageItem(BaseModel):
    """One stage: its devices, its share of the fleet in percent, and its state.

    `counts`: devices that the stage adds, by state; `listed`: at most 40 of them, those with trouble first.
    """

    name: str
    devices: list[str]
    percent: float
    least_s: float
    least_samples: int
    state: str
    counts: dict[str, int]
    listed: list[ListedDevice]


class GateItem(BaseModel):
    """Decision of one gate, with the figures that it saw; `figures` is null while there are none."""

    gate: str
    outcome: str
    text: str
    figures: GateFigures | None


class HistoryItem(BaseModel):
    """One change of a rollout."""

    at: str
    event: str
    phase: str
    stage: str
    author: str
    reason: str


class RolloutItem(BaseModel):
    """One rollout in stages."""

    number: int
    bundle_name: str
    bundle_id: str
    before_bundle_id: str
    phase: str
    stage: str
    stages: list[StageItem]
    started_at: str
    stage_started_at: str
    ended_at: str | None
    limits: RolloutLimits
    gates: list[GateItem]
    history: list[HistoryItem]


class RolloutPage(BaseModel):
    """Page of rollouts, newest first; `next` is null on the last page."""

    items: list[RolloutItem]
    next: str | None


class RolloutRequest(BaseModel):
    """Rollout in stages to start; `trial` and `waves` are texts as those of `vedette cloud rollout`.

    `trial_group`: group whose devices are the trial, in place of `trial`.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=64)
    bundle_id: str = Field(max_length=128)
    trial: str = Field(default="", max_length=4000, description='"trial=DEVICE,DEVICE" or "trial=5%"; empty: none.')
    trial_group: str = Field(default="", max_length=64)
    waves: str = Field(default=DEFAULT_WAVES, max_length=400, description="Growing shares in percent, the last 100.")
    stage_s: float = Field(default=DEFAULT_STAGE_S, ge=0)
    stage_samples: int = Field(default=DEFAULT_STAGE_SAMPLES, ge=0)
    limits: RolloutLimits = DEFAULT_LIMITS
    reason: str = Field(default="", max_length=1024)


class ActionRequest(BaseModel):
    """Action on a rollout, with its reason for the history; `number`: only if it is still this rollout."""

    model_config = ConfigDict(extra="forbid")

    action: RolloutStep
    number: int | None = Field(default=None, ge=1, le=MAX_NUMBER)
    reason: str = Field(default="", max_length=1024)


def rollout_routes(store: Store, writing: Store, registry: Registry | None) -> APIRouter:
    """Return the routes of rollouts; `registry` verifies bundles before they are rolled out."""
    router = api_router("rollouts")
    _add_changes(router, writing, registry)

    @router.get("/rollouts", response_model=RolloutPage, **needs(Scope.ROLLOUTS_READ))
    async def list_rollouts(
        request: Request, name: Name = "", cursor: CursorText = "", size: Size = 50
    ) -> dict[str, Any]:
        """Return one page of rollouts, newest first."""
        key = read_cursor(request, cursor, int)
        async with store.reading() as connection:
            before = key[0] if key is not None else None
            found = await rollout_page(connection, name=name, before=before, size=size + 1)
            items = [
                with_rfc3339((await view_of(connection, rollout)).model_dump(mode="json")) for rollout in found[:size]
            ]
        return page(items, next_cursor(request, found[size - 1].number) if len(found) > size else None)

    @router.get("/rollouts/{number}", response_model=RolloutItem, **needs(Scope.ROLLOUTS_READ, 404))
    async def rollout(number: Annotated[int, Path(ge=1, le=MAX_NUMBER)]) -> dict[str, Any]:
        """Return one rollout; 404 for an unknown one."""
        async with store.reading() as connection:
            found = await one_rollout(connection, number)
        if found is None:
            raise not_found(f"Rollout {number}")
        return await _view(store, found)

    return router


def _add_changes(router: APIRouter, writing: Store, registry: Registry | None) -> None:
    @router.post(
        "/rollouts", response_model=RolloutItem, status_code=201, **needs(Scope.ROLLOUTS_WRITE, 409, *WITH_BODY)
    )
    async def start_rollout(request: Request, body: RolloutRequest) -> dict[str, Any]:
        """Start a rollout in stages; 409 if the bundle or another rollout does not allow it."""
        caller = caller_of(request)
        with _problems():
            trial = await group_trial(writing, body.trial_group) if body.trial_group else body.trial
            stages = parse_stages(trial, body.waves, least_s=body.stage_s, least_samples=body.stage_samples)
            if registry is not None and (entry := await registry.entry(body.bundle_id)) is not None:
                await registry.verify(entry)
            started = await begin(
                writing,
                body.name,
                body.bundle_id,
                stages,
                author=caller.actor,
                actor=caller.actor,
                reason=body.reason,
                now_s=time.time(),
                limits=body.limits,
            )
        return await _view(writing, started)

    @router.post("/rollouts/{name}/actions", response_model=RolloutItem, **needs(Scope.ROLLOUTS_WRITE, 409, *WITH_BODY))
    async def act_on_rollout(request: Request, name: str, body: ActionRequest) -> dict[str, Any]:
        """Pause, resume or take back the rollout of a name; 409 if its phase does not allow it."""
        caller = caller_of(request)
        event, now_s = RolloutEvent(body.action.value), time.time()
        with _problems():
            changed = await command(
                writing,
                name,
                event,
                author=caller.actor,
                actor=caller.actor,
                reason=body.reason,
                now_s=now_s,
                number=body.number,
            )
        return await _view(writing, changed)


async def _view(store: Store, rollout: StagedRollout) -> dict[str, Any]:
    async with store.reading() as connection:
        view: dict[str, Any] = with_rfc3339((await view_of(connection, rollout)).model_dump(mode="json"))
    return view


@contextlib.contextmanager
def _problems() -> Iterator[None]:
    """Answer refusals of the block with problem details."""
    try:
        yield
    except SettingsError as error:
        raise DataError(str(error)) from None
    except BundleError as error:
        raise Problem(409, "rollout-refused", str(error)) from None

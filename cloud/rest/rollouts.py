"""Route of rollouts."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from cloud.moments import with_rfc3339
from cloud.rest.access import needs
from cloud.rest.pages import CursorText, Name, Size, next_cursor, page, read_cursor
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.rollout_view import view_of
from cloud.store.rollouts import rollout_page


class StageItem(BaseModel):
    """One stage: its devices, its share of the fleet in percent, and its state."""

    name: str
    devices: list[str]
    percent: float
    least_s: float
    least_samples: int
    state: str


class GateItem(BaseModel):
    """Decision of one gate, with the figures that it saw."""

    gate: str
    outcome: str
    text: str


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

    bundle_name: str
    bundle_id: str
    before_bundle_id: str
    phase: str
    stage: str
    stages: list[StageItem]
    started_at: str
    stage_started_at: str
    ended_at: str | None
    gates: list[GateItem]
    history: list[HistoryItem]


class RolloutPage(BaseModel):
    """Page of rollouts, newest first; `next` is null on the last page."""

    items: list[RolloutItem]
    next: str | None


def rollout_routes(store: Store) -> APIRouter:
    """Return the route of rollouts."""
    router = APIRouter(tags=["rollouts"])

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

    return router

"""Routes of comparisons of two bundles on stored samples."""

import time
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from cloud.comparison.figures import ComparisonFigures, changed, figures_of
from cloud.moments import with_rfc3339
from cloud.rest.access import caller_of, needs
from cloud.rest.pages import CursorText, Size, next_cursor, page, read_cursor, time_or_none
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.comparison_samples import ComparedSample, compared_samples
from cloud.store.comparisons import (
    MAX_SAMPLES,
    AskedSamples,
    Comparison,
    SampleChoice,
    cancel,
    comparison_page,
    one_comparison,
    start,
)
from shared.errors import BundleError

MAX_CHANGED = 50
DEFAULT_SAMPLES = 500
Number = Annotated[int, Path(ge=1, le=2**63 - 1)]


class AskedItem(BaseModel):
    """Samples that were asked for."""

    choice: SampleChoice
    size: int
    since: str | None
    until: str | None


class ComparisonItem(BaseModel):
    """One comparison and its progress.

    `samples` is null until they are chosen, `remaining_s` while the speed is unknown. `waits_for_live`: samples of
    devices are judged first.
    """

    number: int
    bundle_name: str
    first_bundle_id: str
    second_bundle_id: str
    asked: AskedItem
    actor: str
    created_at: str
    status: str
    reason: str
    started_at: str | None
    ended_at: str | None
    samples: int | None
    judged: int
    remaining_s: float | None
    waits_for_live: bool
    false_alarm_rate: float | None


class ChangedItem(BaseModel):
    """A sample with another decision; `sample_id` is null once it has expired."""

    sample_id: str | None
    label: str | None
    first_p_value: float | None
    first_decision: str
    second_p_value: float | None
    second_decision: str


class ComparisonDetail(ComparisonItem):
    """One comparison with the figures so far, and at most 50 samples with another decision."""

    figures: ComparisonFigures
    changed: list[ChangedItem]


class ComparisonPage(BaseModel):
    """Page of comparisons, newest first; `next` is null on the last page."""

    items: list[ComparisonItem]
    next: str | None


class ComparisonRequest(BaseModel):
    """Comparison to start: the newest stored samples of a time, or labelled ones (half of each kind at most)."""

    model_config = ConfigDict(extra="forbid")

    first_bundle_id: str = Field(max_length=128)
    second_bundle_id: str = Field(max_length=128)
    choice: SampleChoice = SampleChoice.NEWEST
    size: int = Field(default=DEFAULT_SAMPLES, ge=1, le=MAX_SAMPLES)
    since: str = Field(default="", max_length=64, description="RFC 3339; empty: no bound.")
    until: str = Field(default="", max_length=64, description="RFC 3339, exclusive; empty: no bound.")


def comparison_routes(store: Store, writing: Store) -> APIRouter:
    """Return the routes of comparisons."""
    router = api_router("comparisons")
    _add_reading(router, store)
    _add_changes(router, writing)
    return router


def _add_reading(router: APIRouter, store: Store) -> None:
    @router.get("/comparisons", response_model=ComparisonPage, **needs(Scope.COMPARISONS_READ))
    async def list_comparisons(request: Request, cursor: CursorText = "", size: Size = 50) -> dict[str, Any]:
        """Return one page of comparisons, newest first."""
        key = read_cursor(request, cursor, int)
        async with store.reading() as connection:
            before = key[0] if key is not None else None
            found = await comparison_page(connection, before=before, size=size + 1)
        following = next_cursor(request, found[size - 1].number) if len(found) > size else None
        return page([_item(comparison) for comparison in found[:size]], following)

    @router.get("/comparisons/{number}", response_model=ComparisonDetail, **needs(Scope.COMPARISONS_READ, 404))
    async def comparison(number: Number) -> dict[str, Any]:
        """Return one comparison with its figures; 404 for an unknown one."""
        async with store.reading() as connection:
            found = await one_comparison(connection, number)
            judged = await compared_samples(connection, number) if found is not None else []
        if found is None:
            raise not_found(f"Comparison {number}")
        figures = figures_of(judged, found.first_bundle_id, found.second_bundle_id)
        return _item(found) | {"figures": figures, "changed": [_changed(item) for item in changed(judged, MAX_CHANGED)]}


def _add_changes(router: APIRouter, writing: Store) -> None:
    @router.post(
        "/comparisons",
        response_model=ComparisonItem,
        status_code=201,
        **needs(Scope.COMPARISONS_WRITE, 409, *WITH_BODY),
    )
    async def start_comparison(request: Request, body: ComparisonRequest) -> dict[str, Any]:
        """Put a comparison into the queue; 409 if the bundles do not fit together, or if too many wait."""
        asked = AskedSamples(body.choice, body.size, time_or_none(body.since), time_or_none(body.until))
        bundle_ids = body.first_bundle_id, body.second_bundle_id
        try:
            started = await start(writing, *bundle_ids, asked, actor=caller_of(request).actor, now_s=time.time())
        except BundleError as error:
            raise Problem(409, "comparison-refused", str(error)) from None
        return _item(started)

    @router.post(
        "/comparisons/{number}/cancellation",
        response_model=ComparisonItem,
        **needs(Scope.COMPARISONS_WRITE, 404, 409),
    )
    async def cancel_comparison(request: Request, number: Number) -> dict[str, Any]:
        """Cancel a comparison; its figures so far stay. 404 for an unknown one, 409 for one that has ended."""
        try:
            found = await cancel(writing, number, actor=caller_of(request).actor, now_s=time.time())
        except BundleError as error:
            raise Problem(409, "comparison-ended", str(error)) from None
        if found is None:
            raise not_found(f"Comparison {number}")
        return _item(found)


def _item(comparison: Comparison) -> dict[str, Any]:
    values = asdict(comparison) | {"remaining_s": comparison.remaining_s}
    asked = values.pop("asked")
    values["asked"] = asked | {"since_at_s": asked["since_s"], "until_at_s": asked["until_s"]}
    item: dict[str, Any] = with_rfc3339(values)
    item["asked"] |= {"since": item["asked"]["since_at"], "until": item["asked"]["until_at"]}
    return item


def _changed(item: ComparedSample) -> dict[str, Any]:
    return {
        "sample_id": str(item.sample_id) if item.sample_id is not None else None,
        "label": item.label,
        "first_p_value": item.first.p_value,
        "first_decision": item.first.decision,
        "second_p_value": item.second.p_value,
        "second_decision": item.second.decision,
    }

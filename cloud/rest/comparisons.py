"""Routes of comparisons of two bundles on stored samples."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from cloud.comparison.report import ComparisonDetail, ComparisonItem, comparison_detail, comparison_item
from cloud.rest.access import caller_of, needs
from cloud.rest.pages import CursorText, Size, next_cursor, page, read_cursor, time_or_none
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.routers import api_router
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.comparison_samples import compared_samples
from cloud.store.comparisons import (
    MAX_SAMPLES,
    AskedSamples,
    SampleChoice,
    cancel,
    comparison_page,
    one_comparison,
    start,
)
from shared.errors import BundleError

DEFAULT_SAMPLES = 500
Number = Annotated[int, Path(ge=1, le=2**63 - 1)]


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
        return page([comparison_item(comparison) for comparison in found[:size]], following)

    @router.get("/comparisons/{number}", response_model=ComparisonDetail, **needs(Scope.COMPARISONS_READ, 404))
    async def comparison(number: Number) -> dict[str, Any]:
        """Return one comparison with its figures; 404 for an unknown one."""
        async with store.reading() as connection:
            found = await one_comparison(connection, number)
            judged = await compared_samples(connection, number) if found is not None else []
        if found is None:
            raise not_found(f"Comparison {number}")
        return comparison_detail(found, judged)


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
        return comparison_item(started)

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
        return comparison_item(found)

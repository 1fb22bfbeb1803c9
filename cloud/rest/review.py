"""Routes of review items: lists, one item, counts, density and saved views."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from cloud.moments import rfc3339
from cloud.rest.access import caller_of, needs
from cloud.rest.pages import CursorText, Size, TimeText, next_cursor, page, read_cursor, time_or_none
from cloud.rest.problems import WITH_BODY, Problem, not_found
from cloud.rest.review_items import (
    Density,
    ReviewCounts,
    ReviewItemInFull,
    ReviewItemPage,
    decision_item,
    item_filter,
    review_item,
)
from cloud.rest.routers import api_router
from cloud.rest.verdicts import verdict_item
from cloud.store import Store
from cloud.store.api_tokens import Scope
from cloud.store.labels import current_labels
from cloud.store.review.counts import density, left_counts
from cloud.store.review.decisions import decisions_on
from cloud.store.review.item_filter import ItemFilter
from cloud.store.review.items import ItemKey, ItemOrder, item_page, items_by_number, member_rows, newest_item
from cloud.store.review.progress import review_version
from cloud.store.review.saved_views import (
    MAX_NAME_CHARACTERS,
    MAX_QUERY_CHARACTERS,
    MAX_VIEWS,
    SavedView,
    remove_view,
    save_view,
    saved_views,
)

MAX_MEMBERS = 100
DAY_S = 86_400.0
MAX_ITEM_NUMBER = 2**63 - 1
Filter = Annotated[ItemFilter, Depends(item_filter)]
ItemNumber = Annotated[int, Path(ge=1, le=MAX_ITEM_NUMBER)]
ViewName = Annotated[str, Path(min_length=1, max_length=MAX_NAME_CHARACTERS)]


class ViewItem(BaseModel):
    """Saved view: the filters in the address of the page, by a name."""

    name: str
    query: str


class ViewList(BaseModel):
    """Saved views of the caller, by name."""

    items: list[ViewItem]


class ViewRequest(BaseModel):
    """Filters of a view, as in the address of the page."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(max_length=MAX_QUERY_CHARACTERS)


def review_routes(reading: Store, writing: Store) -> APIRouter:
    """Return the routes that read review items, and those of the caller's own views."""
    router = api_router("review", "/review")
    _add_items(router, reading)
    _add_counts(router, reading)
    _add_views(router, reading, writing)
    return router


def _add_items(router: APIRouter, reading: Store) -> None:
    @router.get("/items", response_model=ReviewItemPage, **needs(Scope.REVIEW_READ))
    async def list_items(
        request: Request,
        wanted: Filter,
        order: ItemOrder = ItemOrder.NEWEST,
        cursor: CursorText = "",
        size: Size = 50,
    ) -> dict[str, Any]:
        """Return one page of review items; by default those that are left to the caller, newest first."""
        key = read_cursor(request, cursor, float, int)
        after = ItemKey(*key) if key is not None else None
        async with reading.reading() as connection:
            found = await item_page(connection, wanted, order, after=after, size=size)
        place = found.following
        following = next_cursor(request, float(place.p_value), place.number) if place is not None else None
        return page([review_item(item) for item in found.items], following)

    @router.get("/items/{item}", response_model=ReviewItemInFull, **needs(Scope.REVIEW_READ, 404))
    async def one_item(request: Request, item: ItemNumber) -> dict[str, Any]:
        """Return one item with its first verdicts and its decisions; 404 for an unknown one."""
        caller = caller_of(request)
        async with reading.reading() as connection:
            found = await items_by_number(connection, [item], caller.actor, caller.sites)
            if not found:
                raise not_found(f"Review item {item}")
            members = await member_rows(connection, item, MAX_MEMBERS)
            labels = await current_labels(connection, [row.number for row in members])
            history = await decisions_on(connection, item)
        return review_item(found[0]) | {
            "members": [verdict_item(row, labels.get(row.number)) for row in members],
            "decisions": [decision_item(decision) for decision in history],
        }


def _add_counts(router: APIRouter, reading: Store) -> None:
    @router.get("/counts", response_model=ReviewCounts, **needs(Scope.REVIEW_READ))
    async def counts(wanted: Filter) -> dict[str, Any]:
        """Return the items that are left to the caller; `state` has no effect."""
        async with reading.reading() as connection:
            left = await left_counts(connection, wanted)
            version, newest = await review_version(connection), await newest_item(connection)
        by_severity = {severity.value: count for severity, count in left.by_severity.items()}
        return {
            "left": by_severity,
            "sites": left.by_site,
            "devices": left.by_device,
            "muted": left.muted,
            "version": version,
            "newest": newest,
        }

    @router.get("/density", response_model=Density, **needs(Scope.REVIEW_READ))
    async def density_of_time(
        wanted: Filter,
        begin: Annotated[
            TimeText, Query(description="Begin of the first interval; default: a day before the end.")
        ] = "",
        end: Annotated[TimeText, Query(description="End of the last interval; default: now.")] = "",
        step_s: Annotated[float, Query(ge=1, le=10 * 86_400, allow_inf_nan=False)] = 600.0,
    ) -> dict[str, Any]:
        """Return the number of items by intervals of the first capture, without empty ones."""
        until_s = time_or_none(end) or time.time()
        since_s = time_or_none(begin) or until_s - DAY_S
        async with reading.reading() as connection:
            buckets = await density(connection, wanted, since_s, until_s, step_s)
        return {
            "items": [
                {"at": rfc3339(bucket.at_s), "severity": bucket.severity, "items": bucket.items} for bucket in buckets
            ]
        }


def _add_views(router: APIRouter, reading: Store, writing: Store) -> None:
    @router.get("/views", response_model=ViewList, **needs(Scope.REVIEW_MARK))
    async def list_views(request: Request) -> dict[str, Any]:
        """Return the saved views of the caller."""
        async with reading.reading() as connection:
            found = await saved_views(connection, caller_of(request).actor)
        return {"items": [{"name": view.name, "query": view.query} for view in found]}

    @router.put("/views/{name}", response_model=ViewItem, **needs(Scope.REVIEW_MARK, 409, *WITH_BODY))
    async def put_view(request: Request, name: ViewName, body: ViewRequest) -> dict[str, Any]:
        """Add or replace a view of the caller."""
        if not await save_view(writing, caller_of(request).actor, SavedView(name, body.query)):
            raise Problem(409, "too-many-views", f"There are {MAX_VIEWS} views already: delete one first.")
        return {"name": name, "query": body.query}

    @router.delete("/views/{name}", status_code=204, **needs(Scope.REVIEW_MARK, 404))
    async def delete_view(request: Request, name: ViewName) -> Response:
        """Delete a view of the caller; 404 for an unknown one."""
        if not await remove_view(writing, caller_of(request).actor, name):
            raise not_found(f"View {name!r}")
        return Response(status_code=204)

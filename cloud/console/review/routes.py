"""Page "Review": items that ask for a person, by severity, and one of them beside the list."""

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse

from cloud.accounts.identity import ANYBODY, SignedIn, signed_in
from cloud.console.audience import Audiences
from cloud.console.guidance import BundleProblems
from cloud.console.page import page, part
from cloud.console.review.mute_view import DAYS_WORDS, LIKENESS_WORDS, SCOPE_WORDS
from cloud.console.review.query import ReviewQuery
from cloud.console.review.reading import ReviewReader, can_decide, filter_choices
from cloud.store import Store
from cloud.store.defect_classes import listed_classes
from cloud.store.review.counts import density
from shared.errors import DataError

MAX_SHOWN = 500
MAX_NUMBER = 2**63 - 1


def review_router(store: Store, audiences: Audiences, bundle_problems: BundleProblems) -> APIRouter:
    """Return the page and its parts."""
    router = APIRouter(include_in_schema=False)
    reader = ReviewReader(store, bundle_problems)
    _add_page(router, reader, audiences, store)
    _add_parts(router, reader, store, audiences)
    return router


def _add_page(router: APIRouter, reader: ReviewReader, audiences: Audiences, store: Store) -> None:
    async def inbox(request: Request) -> str:
        summary = (await audiences.of(request).snapshots.newest()).summary
        return await reader.inbox(_person(request), ReviewQuery.parse(request.query_params), summary)

    @router.get("/")
    async def review(request: Request) -> HTMLResponse:
        """Answer with the page as its address says."""
        query, person = ReviewQuery.parse(request.query_params), _person(request)

        async def read() -> tuple[int, dict[str, Any]]:
            panel = (await reader.panel(person, query.opened))[1] if query.opened is not None else ""
            async with store.reading() as connection:
                classes = [each.name for each in await listed_classes(connection)]
            content = {"inbox": await inbox(request), "panel": panel, "class_names": classes}
            return 200, content | {"choices": filter_choices(query, classes)}

        values = {"query": query, "can_decide": can_decide(person), "mute_scopes": SCOPE_WORDS}
        values |= {"mute_likeness": LIKENESS_WORDS, "mute_days": DAYS_WORDS}
        return await page(request, audiences.of(request), "review/page.html", read, **values)

    @router.get("/parts/review")
    async def inbox_part(request: Request) -> HTMLResponse:
        """Answer with side, tabs and one page of the list."""
        return part(await inbox(request))


def _add_parts(router: APIRouter, reader: ReviewReader, store: Store, audiences: Audiences) -> None:
    @router.get("/parts/review/changes")
    async def changes(
        request: Request,
        newest: Annotated[int, Query(ge=0, le=MAX_NUMBER)] = 0,
        shown: Annotated[str, Query(max_length=64 * MAX_SHOWN)] = "",
    ) -> dict[str, Any]:
        """Answer with the changes since the list was read; `shown`: number and mark of its items, "7:0.0.3.alarm"."""
        marks = dict(item.partition(":")[::2] for item in shown.split(",")[:MAX_SHOWN])
        known = {int(text): mark for text, mark in marks.items() if text.isascii() and text.isdigit()}
        known = {number: mark for number, mark in known.items() if number <= MAX_NUMBER}
        snapshots = audiences.of(request).snapshots
        found = await reader.changes(
            _person(request), ReviewQuery.parse(request.query_params), newest, known, snapshots
        )
        return {"tabs": found.tabs, "places": found.side, "new": found.new, "rows": found.rows}

    @router.get("/parts/review/item/{item}")
    async def item_part(request: Request, item: int) -> HTMLResponse:
        """Answer with one opened item; 404 for an unknown one."""
        status, html = await reader.panel(_person(request), item) if 0 < item <= MAX_NUMBER else (404, "")
        if not html:
            raise HTTPException(404, "This is not the number of a review item.")
        return part(html, status)

    @router.get("/parts/review/density")
    async def density_part(
        request: Request,
        begin_s: Annotated[float, Query(ge=0, le=1e11, allow_inf_nan=False)] = 0.0,
        end_s: Annotated[float, Query(ge=0, le=1e11, allow_inf_nan=False)] = 86_400.0,
        step_s: Annotated[float, Query(ge=1, le=1e6, allow_inf_nan=False)] = 900.0,
    ) -> dict[str, Any]:
        """Answer with the number of items by intervals, as [begin, severity, items]."""
        wanted = ReviewQuery.parse(request.query_params).to_filter(_person(request))
        try:
            async with store.reading() as connection:
                buckets = await density(connection, wanted, begin_s, end_s, step_s)
        except DataError as error:
            raise HTTPException(422, str(error)) from None
        return {"items": [(bucket.at_s, bucket.severity, bucket.items) for bucket in buckets]}


def _person(request: Request) -> SignedIn:
    return signed_in(request.scope) or ANYBODY

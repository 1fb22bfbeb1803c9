"""Pages "Mutes" and "Defect classes", the preview of a mute, and the effects of a label."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse

from cloud.accounts.identity import ANYBODY, SignedIn, signed_in
from cloud.console.audience import Audiences
from cloud.console.page import page, part
from cloud.console.rendering import render
from cloud.console.review.mute_view import figures_view, mute_view, preview_view
from cloud.console.review.reading import can_decide
from cloud.store import Store
from cloud.store.defect_classes import MAX_CLASSES, listed_classes
from cloud.store.label_figures import label_figures
from cloud.store.labels import Label
from cloud.store.review.items import items_by_number
from cloud.store.review.mute_preview import (
    DEFAULT_LIKENESS,
    LEAST_LIKENESS,
    NoPatternError,
    pattern_of,
    preview_mute,
)
from cloud.store.review.mutes import HiddenCounts, hidden_counts, mute_page
from cloud.store.review.muting import MAX_MUTES, MuteScope
from cloud.store.review.signature import bundle_name
from cloud.user_roles import UserRole

PAGE_SIZE, SHOWN_ITEMS = 100, 24
MAX_NUMBER = 2**63 - 1


def label_router(store: Store, audiences: Audiences) -> APIRouter:
    """Return the pages and the parts."""
    router = APIRouter(include_in_schema=False)
    _add_mutes(router, store, audiences)
    _add_classes(router, store, audiences)
    _add_parts(router, store)
    return router


def _add_mutes(router: APIRouter, store: Store, audiences: Audiences) -> None:
    async def html(request: Request) -> str:
        person, text = _person(request), request.query_params.get("before", "")
        before = int(text) if text.isascii() and text.isdecimal() and len(text) < 18 else None
        now_s = time.time()
        async with store.reading() as connection:
            active = await mute_page(connection, is_active=True, sites=person.sites, size=10 * MAX_MUTES)
            ended = await mute_page(connection, is_active=False, sites=person.sites, before=before, size=PAGE_SIZE + 1)
            counts = await hidden_counts(connection, [mute.number for mute in (*active, *ended)], now_s)

        def views(mutes: Any) -> list[dict[str, Any]]:
            return [mute_view(mute, counts.get(mute.number, HiddenCounts()), now_s) for mute in mutes]

        more = ended[PAGE_SIZE - 1].number if len(ended) > PAGE_SIZE else None
        return render(
            "review/mutes.html",
            active=views(active),
            ended=views(ended[:PAGE_SIZE]),
            more=more,
            most=MAX_MUTES,
            can_decide=can_decide(person),
        )

    @router.get("/mutes")
    async def mutes(request: Request) -> HTMLResponse:
        """Answer with the page."""

        async def read() -> tuple[int, dict[str, Any]]:
            return 200, {"mutes": await html(request)}

        return await page(request, audiences.of(request), "review/mutes_page.html", read)

    @router.get("/parts/mutes")
    async def mutes_part(request: Request) -> HTMLResponse:
        """Answer with the mutes alone."""
        return part(await html(request))


def _add_classes(router: APIRouter, store: Store, audiences: Audiences) -> None:
    @router.get("/defect-classes")
    async def classes(request: Request) -> HTMLResponse:
        """Answer with the page."""
        person = _person(request)

        async def read() -> tuple[int, dict[str, Any]]:
            async with store.reading() as connection:
                return 200, {"classes": await listed_classes(connection)}

        may_change = bool(person.name) and person.role.covers(UserRole.ADMIN) and not person.sites
        values = {"can_decide": can_decide(person), "can_change": may_change, "most": MAX_CLASSES}
        return await page(request, audiences.of(request), "review/classes_page.html", read, **values)


def _add_parts(router: APIRouter, store: Store) -> None:
    @router.get("/parts/review/mute/{item}")
    async def mute_part(
        request: Request,
        item: int,
        scope: MuteScope = MuteScope.SOURCE,
        likeness: Annotated[float, Query(ge=LEAST_LIKENESS, le=1.0, allow_inf_nan=False)] = DEFAULT_LIKENESS,
    ) -> HTMLResponse:
        """Answer with the preview of a mute, or the reason why there can be none."""
        person = _person(request)
        if not 0 < item <= MAX_NUMBER:
            raise HTTPException(404, "This is not the number of a review item.")
        try:
            async with store.reading() as connection:
                pattern = await pattern_of(connection, item, scope, likeness, person.sites)
                preview = await preview_mute(connection, pattern)
                chosen = [*preview.real, *(each for each in preview.hidden if each not in preview.real)]
                items = await items_by_number(connection, chosen[:SHOWN_ITEMS], person.actor, person.sites)
        except NoPatternError as error:
            return part(render("review/mute_preview.html", preview=None, reason=str(error)))
        return part(render("review/mute_preview.html", preview=preview_view(preview, items), reason=""))

    @router.get("/parts/review/effects/{item}")
    async def effects_part(request: Request, item: int) -> HTMLResponse:
        """Answer with the effects of the decision on an item."""
        person = _person(request)
        if not 0 < item <= MAX_NUMBER:
            raise HTTPException(404, "This is not the number of a review item.")
        async with store.reading() as connection:
            found = await items_by_number(connection, [item], person.actor, person.sites)
            if not found or found[0].cover is None:
                return part(render("review/effects.html", item=None, figures=None, preview=None, reason=""))
            name = bundle_name(found[0].cover.bundle_id or found[0].cover.edge_bundle_id)
            figures = figures_view(await label_figures(connection, name, person.sites), name)
            preview, reason = None, ""
            if found[0].decision is Label.FALSE_ALARM:
                try:
                    pattern = await pattern_of(connection, item, MuteScope.SOURCE, sites=person.sites)
                    preview = preview_view(await preview_mute(connection, pattern), ())
                except NoPatternError as error:
                    reason = str(error)
        html = render("review/effects.html", item=found[0], figures=figures, preview=preview, reason=reason)
        return part(html)


def _person(request: Request) -> SignedIn:
    return signed_in(request.scope) or ANYBODY

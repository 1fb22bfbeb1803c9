"""HTTP API: the figures of the console as JSON."""

import time
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request

from cloud.console.audience import Audiences
from cloud.console.figures import fleet_figures
from cloud.console.views import VerdictPageView, row_view
from cloud.console.why.reading import WAITING, VerdictReader
from cloud.devices import DeviceView, read_devices
from cloud.query_parameters import parameter_problem
from cloud.store import Store
from cloud.store.queries import MAX_PAGE_SIZE, verdict_page
from cloud.store.verdict_keys import VerdictFilter, VerdictKey
from shared.errors import DataError
from shared.modality import Modality
from shared.samples import Decision, Route

MAX_DEVICES = 500
Text = Annotated[str, Query(max_length=512)]


def api_router(store: Store, verdicts: VerdictReader, audiences: Audiences) -> APIRouter:
    """Return the routes below /api."""
    router = APIRouter(prefix="/api", tags=["api"], dependencies=[Depends(refuse_unknown_parameters)])
    _add_verdicts(router, store, verdicts, audiences)
    _add_devices(router, store, audiences)
    return router


def _add_verdicts(router: APIRouter, store: Store, reader: VerdictReader, audiences: Audiences) -> None:
    @router.get("/verdicts", response_model=VerdictPageView)
    async def verdicts(
        request: Request,
        device: Text = "",
        modality: Modality | None = None,
        route: Route | None = None,
        decision: Decision | None = None,
        text: Annotated[str, Query(max_length=512, description="beginning of an origin or source; *TEXT: part")] = "",
        since_s: Annotated[float | None, Query(allow_inf_nan=False)] = None,
        until_s: Annotated[float | None, Query(allow_inf_nan=False)] = None,
        before: Annotated[str, Query(max_length=64, description="'older' of another answer")] = "",
        after: Annotated[str, Query(max_length=64, description="'newer' of another answer")] = "",
        size: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = 50,
    ) -> dict[str, Any]:
        """Return one page of verdicts, newest first, and the keys of the pages before and after it.

        A search for a text may give fewer verdicts than `size`, even none, and go on with the page `older`.
        """
        sites = audiences.of(request).sites
        wanted = VerdictFilter(device, modality, route, decision, text, since_s, until_s, sites=sites)
        try:
            keys = {"before": _key(before), "after": _key(after)}
            async with store.reading() as connection:
                page = await verdict_page(connection, wanted, size=size, **keys)
        except DataError as error:
            raise HTTPException(422, str(error)) from None
        return {
            "verdicts": [row_view(row) for row in page.rows],
            "older": str(page.older) if page.older is not None else None,
            "newer": str(page.newer) if page.newer is not None else None,
        }

    @router.get("/verdicts/{sample_id}")
    async def verdict(sample_id: uuid.UUID) -> dict[str, Any]:
        """Return one verdict in full; 404 for an unknown sample, 409 for one that waits or may wait."""
        view, notice = await reader.detail(sample_id)
        if view is None:
            raise HTTPException(409 if notice == WAITING else 404, notice)
        return view


def _add_devices(router: APIRouter, store: Store, audiences: Audiences) -> None:
    @router.get("/devices")
    async def devices(
        request: Request,
        after: Annotated[str, Query(max_length=64, description="id of the last device of another answer")] = "",
        size: Annotated[int, Query(ge=1, le=MAX_DEVICES)] = MAX_DEVICES,
    ) -> list[DeviceView]:
        """Return devices by id with their health, counters and bundles, those after `after`, at most `size`."""
        audience = audiences.of(request)
        async with store.reading() as connection:
            return await read_devices(
                connection,
                now_s=time.time(),
                late_after_s=audience.snapshots.late_after_s,
                after=after,
                size=size,
                sites=audience.sites,
            )

    @router.get("/fleet")
    async def fleet(request: Request) -> dict[str, Any]:
        """Return the figures of the fleet."""
        return fleet_figures((await audiences.of(request).snapshots.newest()).summary, time.time())


def refuse_unknown_parameters(request: Request) -> None:
    """Answer 422 to a query parameter that the route does not know, or that is given twice; name the known ones."""
    if problem := parameter_problem(request):
        raise HTTPException(422, problem)


def _key(text: str) -> VerdictKey | None:
    return VerdictKey.parse(text) if text else None

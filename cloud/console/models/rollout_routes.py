"""Pages of rollouts: list, one rollout, and the form that starts one."""

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.console.audience import Audience, Audiences
from cloud.console.models.rollout_words import LIMIT_FIELDS, rollout_on_page
from cloud.console.page import page, part
from cloud.console.rendering import render
from cloud.rollouts.limits import DEFAULT_LIMITS
from cloud.rollouts.stages import DEFAULT_STAGE_S, DEFAULT_STAGE_SAMPLES, DEFAULT_WAVES
from cloud.store import Store
from cloud.store.bundle_queries import bundle_page
from cloud.store.fleet_queries import device_ids
from cloud.store.group_settings import group_sizes
from cloud.store.registry import current_bundles
from cloud.store.releases import groups_by_name
from cloud.store.rollout_view import RolloutView, view_of
from cloud.store.rollouts import active_rollouts, one_rollout, rollout_page

ROLLOUTS_ON_PAGE = 50
MAX_OFFERED = 200  # bundles and devices that the form offers
MAX_NUMBER = 2**63 - 1


def rollout_router(store: Store, audiences: Audiences) -> APIRouter:
    """Return the pages and their parts."""
    router = APIRouter(include_in_schema=False)
    _add_list(router, store, audiences)
    _add_one(router, store, audiences)
    _add_form(router, store, audiences)
    return router


def _add_list(router: APIRouter, store: Store, audiences: Audiences) -> None:
    async def list_html(audience: Audience, before: int | None) -> str:
        async def read() -> str:
            async with store.reading() as connection:
                found = await rollout_page(connection, before=before, size=ROLLOUTS_ON_PAGE + 1)
                views = [await _view(connection, audience, rollout) for rollout in found[:ROLLOUTS_ON_PAGE]]
            older = views[-1].number if len(found) > ROLLOUTS_ON_PAGE else None
            rows = [rollout_on_page(view) for view in views]
            return render("models/rollouts.html", rollouts=rows, older=older, is_first=before is None)

        return await audience.snapshots.shared(("rollouts", before), read)

    @router.get("/models/rollouts")
    async def rollouts(request: Request, before: str = "") -> HTMLResponse:
        """Answer with the list."""
        audience = audiences.of(request)

        async def read() -> tuple[int, dict[str, Any]]:
            return 200, {"content": await list_html(audience, _number(before))}

        return await page(request, audience, "models/rollouts_page.html", read)

    @router.get("/parts/models/rollouts")
    async def rollouts_part(request: Request, before: str = "") -> HTMLResponse:
        """Answer with the list alone."""
        return part(await list_html(audiences.of(request), _number(before)))


def _add_one(router: APIRouter, store: Store, audiences: Audiences) -> None:
    async def one_html(audience: Audience, number: int) -> tuple[int, str]:
        async def read() -> tuple[int, str]:
            async with store.reading() as connection:
                found = await one_rollout(connection, number)
                view = await _view(connection, audience, found) if found is not None else None
            shown = rollout_on_page(view) if view is not None else None
            values = {"rollout": shown, "number": number, "sites": audience.sites, "now_s": time.time()}
            return 404 if view is None else 200, render("models/rollout.html", **values)

        return await audience.snapshots.shared(("rollout", number), read)

    @router.get("/models/rollouts/{number}")
    async def rollout(request: Request, number: str) -> HTMLResponse:
        """Answer with the page; 404 for an unknown rollout."""
        audience = audiences.of(request)

        async def read() -> tuple[int, dict[str, Any]]:
            status, text = await one_html(audience, _number(number) or 0)
            return status, {"content": text, "is_known": status == 200, "name": await _name(store, number)}

        return await page(request, audience, "models/rollout_page.html", read, number=_number(number) or 0)

    @router.get("/parts/models/rollouts/{number}")
    async def rollout_part(request: Request, number: str) -> HTMLResponse:
        """Answer with the rollout alone."""
        status, text = await one_html(audiences.of(request), _number(number) or 0)
        return part(text, status)


def _add_form(router: APIRouter, store: Store, audiences: Audiences) -> None:
    @router.get("/models/new-rollout")
    async def new_rollout(request: Request, bundle: str = "") -> HTMLResponse:
        """Answer with the form that starts a rollout."""

        async def read() -> tuple[int, dict[str, Any]]:
            async with store.reading() as connection:
                return 200, await _choices(connection) | {"chosen": bundle[:128]}

        return await page(request, audiences.of(request), "models/new_rollout.html", read)


async def _choices(connection: AsyncConnection) -> dict[str, Any]:
    """Return what the form offers: bundles that may be rolled out, groups, devices and the default values."""
    found = await bundle_page(connection, size=MAX_OFFERED, newest_first=True)
    busy = {rollout.bundle_name: rollout.number for rollout in await active_rollouts(connection)}
    released = await groups_by_name(connection)
    with_current = {bundle.name for bundle in await current_bundles(connection)}
    return {
        "bundles": [
            bundle
            for bundle in found
            if not bundle.is_current and bundle.entry.name in with_current and bundle.entry.name not in busy
        ],
        "busy": busy,
        "released": {name: sorted(groups) for name, groups in released.items()},
        "groups": {name: count for name, count in (await group_sizes(connection)).items() if count},
        "devices": await device_ids(connection, MAX_OFFERED),
        "limits": [(name, words, getattr(DEFAULT_LIMITS, name)) for name, words in LIMIT_FIELDS],
        "max_failed": DEFAULT_LIMITS.max_failed,
        "min_devices": DEFAULT_LIMITS.min_devices,
        "waves": DEFAULT_WAVES,
        "stage_minutes": DEFAULT_STAGE_S / 60,
        "stage_samples": DEFAULT_STAGE_SAMPLES,
    }


async def _view(connection: AsyncConnection, audience: Audience, rollout: Any) -> RolloutView:
    view = await view_of(connection, rollout)
    return view.without_devices() if audience.sites else view


async def _name(store: Store, number: str) -> str:
    """Return the bundle name of a rollout; empty for an unknown one."""
    async with store.reading() as connection:
        found = await one_rollout(connection, _number(number) or 0)
    return found.bundle_name if found is not None else ""


def _number(text: str) -> int | None:
    """Return a number of an address; None for another text."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= 19
    return min(int(text), MAX_NUMBER) if is_number else None

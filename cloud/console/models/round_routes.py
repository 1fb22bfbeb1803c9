"""Page of federated rounds."""

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from cloud.console.audience import Audiences
from cloud.console.page import page, part
from cloud.console.rendering import render
from cloud.system.figures import System
from cloud.system.rounds import RunFacts, last_runs
from cloud.words import NO_FIGURE, bytes_words, count_words, duration_words

TONES = {"published": "good", "failed": "bad", "lost": "bad", "under way": "under-way"}


def round_router(audiences: Audiences, system: System | None) -> APIRouter:
    """Return the page and its part; `system` is None where a process has no data directory."""
    router = APIRouter(include_in_schema=False)

    async def html(request: Request) -> str:
        async def read() -> str:
            data_dir = system.settings.data_dir if system is not None else None
            runs = await asyncio.to_thread(last_runs, data_dir, time.time()) if data_dir is not None else []
            return render("models/rounds.html", runs=[run_on_page(run) for run in runs])

        return await audiences.of(request).snapshots.shared("rounds", read)

    @router.get("/models/rounds")
    async def rounds(request: Request) -> HTMLResponse:
        """Answer with the page."""

        async def read() -> tuple[int, dict[str, Any]]:
            return 200, {"content": await html(request)}

        return await page(request, audiences.of(request), "models/rounds_page.html", read)

    @router.get("/parts/models/rounds")
    async def rounds_part(request: Request) -> HTMLResponse:
        """Answer with the rounds alone."""
        return part(await html(request))

    return router


def run_on_page(run: RunFacts) -> dict[str, Any]:
    """Return a run as the page shows it."""
    return {
        "name": run.name,
        "title": f"{run.plan.bundle_before}, {run.plan.rounds} rounds" if run.plan is not None else run.name,
        "before": run.plan.bundle_before if run.plan is not None else "",
        "after": run.bundle_after,
        "started_at_s": run.plan.started_at_s if run.plan is not None else None,
        "status": run.status,
        "tone": TONES[run.status],
        "reason": run.reason,
        "rounds": [
            {
                "number": each.number,
                "seconds": duration_words(each.seconds),
                "devices": each.devices,
                "samples": count_words(each.samples),
                "loss": f"{each.loss:.4f}" if each.loss is not None else NO_FIGURE,
                "bytes": bytes_words(each.moved_bytes) if each.moved_bytes else NO_FIGURE,
                "refusals": each.refusals,
            }
            for each in run.rounds
        ],
    }

"""Page of one device: its state, history, bundles, settings, audits and newest samples."""

import time
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.accounts.identity import ANYBODY, signed_in
from cloud.console.audience import Audience, Audiences
from cloud.console.fleet.history import SPAN_LABELS, SPANS_S, HistoryPlots, device_history
from cloud.console.fleet.words import device_on_page, miss_words
from cloud.console.page import page, part
from cloud.console.rendering import render
from cloud.console.review.reading import can_decide
from cloud.console.views import row_view
from cloud.devices import DeviceView, miss_view, read_devices
from cloud.store import Store
from cloud.store.device_queries import BundleAudits, audits_by_bundle, newest_of_sources, times_of_device
from cloud.store.group_settings import settings_by_group
from cloud.store.heartbeat_history import history_of
from cloud.store.missed_reports import StoredReport, count_reports, report_page
from cloud.store.verdict_columns import VerdictRow
from cloud.system.figures import LatencyFigures, latency_of
from cloud.words import count_words, duration_words
from shared.group_settings import GroupSettings

SHOWN_REPORTS = 5
SETTING_WORDS = {
    "false_alarms_per_day": "False alarms a day",
    "audit_share": "Share of audits",
    "max_samples_per_s": "Samples a second, at most",
    "max_bytes_per_s": "Bytes a second, at most",
    "max_miss_rate": "Missed share, at most",
}


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """Facts of one device in one view of the store."""

    view: DeviceView
    history: HistoryPlots
    wanted: GroupSettings
    audits: list[BundleAudits]
    latency: LatencyFigures
    newest: list[VerdictRow]
    reported: int
    reports: tuple[StoredReport, ...]


def device_router(store: Store, audiences: Audiences) -> APIRouter:
    """Return the page and its part."""
    router = APIRouter(include_in_schema=False)

    async def html(request: Request, audience: Audience, device_id: str, span: str) -> tuple[int, str]:
        can_look = can_decide(signed_in(request.scope) or ANYBODY)

        async def read() -> tuple[int, str]:
            async with store.reading() as connection:
                facts = await _read(connection, device_id, span, audience.snapshots.late_after_s)
            if facts is None:
                return 404, render("fleet/device.html", device=None, device_id=device_id)
            return 200, _render(facts, span, can_look=can_look)

        return await audience.snapshots.shared(("device", device_id, span, can_look), read)

    @router.get("/device/{device_id}")
    async def device(request: Request, device_id: str, span: str = "24h") -> HTMLResponse:
        """Answer with the page; 404 for an unknown device."""
        audience = audiences.of(request)

        async def read() -> tuple[int, dict[str, Any]]:
            status, text = await html(request, audience, device_id, _span(span))
            async with store.reading() as connection:
                newest = await newest_of_sources(connection, device_id)
            sources = sorted({row.source_id for row in newest})
            return status, {"device": text, "is_known": status == 200, "sources": sources}

        values = {"device_id": device_id, "can_decide": can_decide(signed_in(request.scope) or ANYBODY)}
        return await page(request, audience, "fleet/device_page.html", read, **values)

    @router.get("/parts/device/{device_id}")
    async def device_part(request: Request, device_id: str, span: str = "24h") -> HTMLResponse:
        """Answer with the device alone."""
        status, text = await html(request, audiences.of(request), device_id, _span(span))
        return part(text, status)

    return router


async def _read(connection: AsyncConnection, device_id: str, span: str, late_after_s: float) -> DeviceFacts | None:
    now_s = time.time()
    found = await read_devices(connection, now_s=now_s, late_after_s=late_after_s, device_id=device_id)
    if not found or not device_id:
        return None
    (view,) = found
    since_s = now_s - SPANS_S[span]
    return DeviceFacts(
        view=view,
        history=device_history(await history_of(connection, device_id, since_s), since_s, now_s),
        wanted=(await settings_by_group(connection)).get(view.group, GroupSettings()),
        audits=await audits_by_bundle(connection, device_id),
        latency=latency_of(await times_of_device(connection, device_id)),
        newest=await newest_of_sources(connection, device_id),
        reported=await count_reports(connection, device_id),
        reports=await report_page(connection, device_id=device_id, size=SHOWN_REPORTS),
    )


def _render(facts: DeviceFacts, span: str, *, can_look: bool) -> str:
    shown = device_on_page(facts.view)
    return render(
        "fleet/device.html",
        device=shown,
        device_id=facts.view.device_id,
        history=facts.history,
        can_look=can_look,
        span=span,
        spans=SPAN_LABELS,
        settings=_settings(facts),
        misses=[(each.bundle_id, miss_words(miss_view(each.decisions))) for each in facts.audits],
        latency=_latency(facts.latency),
        newest=[row_view(row) for row in facts.newest],
        reported_words=_reported_words(facts.reported),
        reports=facts.reports,
    )


def _reported_words(count: int) -> str:
    if not count:
        return "People have reported no miss of this device."
    return f"People have reported {count_words(count)} {'miss' if count == 1 else 'misses'} of this device."


def _settings(facts: DeviceFacts) -> list[tuple[str, str, str]]:
    """Return name, value in force and value of the group of each setting, in words."""
    in_force, wanted = facts.view.settings or {}, facts.wanted.given()
    return [
        (words, _value(in_force.get(name), "unknown"), _value(wanted.get(name), "as in edge.toml"))
        for name, words in SETTING_WORDS.items()
    ]


def _value(value: float | None, missing: str) -> str:
    return missing if value is None else f"{value:g}"


def _latency(latency: LatencyFigures) -> str:
    median_s, p95_s = latency.from_capture_median_s, latency.from_capture_p95_s
    if median_s is None or p95_s is None:
        return ""
    return (
        f"Half of the newest {latency.verdicts} verdicts came within {duration_words(median_s)} of the capture, "
        f"95 in 100 within {duration_words(p95_s)}."
    )


def _span(text: str) -> str:
    return text if text in SPANS_S else "24h"

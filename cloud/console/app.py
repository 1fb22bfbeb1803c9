"""Console as one ASGI application: NiceGUI pages, pictures and JSON."""

from collections.abc import MutableMapping
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from nicegui import app as pages
from nicegui import ui
from starlette.types import ASGIApp, Receive, Scope, Send

from cloud.console.api import api_router
from cloud.console.bundles import build_bundle_page, bundle_router
from cloud.console.guidance import BundleProblems
from cloud.console.live import build_live_page
from cloud.console.media import Media
from cloud.console.not_found import not_found
from cloud.console.pages import build_devices_page, build_verdict_page
from cloud.console.snapshots import Snapshots
from cloud.store import Store
from cloud.store.registry import Registry
from cloud.store.rollout_view import RolloutView, rollout_view
from shared.errors import StorageError, StoreBusyError

LATE_AFTER_S = 60.0
PAGE_TIMEOUT_S = 15.0
BUSY_RETRY_S = 2

# Vue compiles templates in the browser and needs 'unsafe-eval'; no other host is contacted.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}


def create_app(
    store: Store,
    registry: Registry,
    *,
    late_after_s: float = LATE_AFTER_S,
    bundle_problems: BundleProblems = dict[str, str],
) -> FastAPI:
    """Return the console over an open store; serve it with its lifespan, one at a time per process.

    A device without a heartbeat for `late_after_s` seconds is shown as silent. An empty list shows `bundle_problems`.
    """
    snapshots = Snapshots(store, late_after_s)
    app = FastAPI(title="Vedette console", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    app.add_middleware(SecurityHeaders)
    app.add_exception_handler(StorageError, _storage_error)
    app.include_router(api_router(store, registry, snapshots))
    app.include_router(bundle_router(registry.manifest, partial(_read_rollout, store)))
    app.include_router(Media(store).router)
    _add_pages(store, registry, snapshots, bundle_problems)
    pages.on_shutdown(snapshots.close)
    pages.add_exception_handler(404, not_found)  # in place of NiceGUI's own page
    pages.middleware_stack = None  # NiceGUI has one application per process: reset it in case it ran before
    ui.run_with(
        app,
        title="Vedette",
        favicon=_FAVICON,
        dark=None,
        reconnect_timeout=30.0,
        tailwind=False,
        show_welcome_message=False,
        gzip_middleware_factory=None,
    )
    return app


class SecurityHeaders:
    """Middleware that adds security headers; headers of a route take precedence."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {name.lower() for name, _ in headers}
                message["headers"] = headers + [item for item in _HEADERS.items() if item[0] not in present]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _add_pages(store: Store, registry: Registry, snapshots: Snapshots, bundle_problems: BundleProblems) -> None:
    @ui.page("/", title="Live · Vedette", response_timeout=PAGE_TIMEOUT_S)
    async def live(request: Request) -> None:
        await build_live_page(store, snapshots, dict(request.query_params), bundle_problems)

    @ui.page("/devices", title="Devices · Vedette", response_timeout=PAGE_TIMEOUT_S)
    async def devices(after: str = "") -> None:
        await build_devices_page(store, registry, snapshots, after)

    @ui.page("/verdict/{sample_id}", title="Verdict · Vedette", response_timeout=PAGE_TIMEOUT_S)
    async def verdict(sample_id: str) -> None:
        await build_verdict_page(store, snapshots, sample_id)

    @ui.page("/bundle/{bundle_id}", title="Bundle · Vedette", response_timeout=PAGE_TIMEOUT_S)
    async def bundle(bundle_id: str) -> None:
        await build_bundle_page(registry.manifest, partial(_read_rollout, store), snapshots, bundle_id)


async def _read_rollout(store: Store, name: str) -> RolloutView | None:
    async with store.reading() as connection:
        return await rollout_view(connection, name)


async def _storage_error(_: Request, error: Exception) -> JSONResponse:
    headers = {"Retry-After": str(BUSY_RETRY_S)} if isinstance(error, StoreBusyError) else None
    return JSONResponse({"detail": str(error)}, status_code=503, headers=headers)


_FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 20"><path d="M10 1.5 17.5 5v5c0 4.4-3 7.4-7.5 '
    '8.7C5.5 17.4 2.5 14.4 2.5 10V5z" fill="none" stroke="#3b76c8" stroke-width="1.8"/>'
    '<circle cx="10" cy="9.5" r="2.8" fill="#3b76c8"/></svg>'
)

"""Console as one ASGI application: pages, their stream of changes, pictures and JSON."""

import contextlib
from collections.abc import AsyncIterator, MutableMapping
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cloud.bundle_report.reading import BundleReports
from cloud.console.api import api_router
from cloud.console.audience import Audiences
from cloud.console.fleet.device_routes import device_router
from cloud.console.fleet.enrolment_routes import enrolment_router
from cloud.console.fleet.group_routes import group_router
from cloud.console.fleet.live_view_routes import live_view_router
from cloud.console.fleet.notice_routes import notice_router
from cloud.console.fleet.routes import fleet_router
from cloud.console.guidance import BundleProblems
from cloud.console.live import TOPICS, LiveStream
from cloud.console.models.bundle_routes import bundle_page_router
from cloud.console.models.bundles import bundle_router
from cloud.console.models.comparison_routes import comparison_router
from cloud.console.models.rollout_routes import rollout_router
from cloud.console.models.round_routes import round_router
from cloud.console.not_found import not_found
from cloud.console.review.label_routes import label_router
from cloud.console.review.routes import review_router
from cloud.console.static_files import static_router
from cloud.console.system.routes import system_router
from cloud.console.training.routes import training_router
from cloud.console.verdicts.routes import verdict_list_router
from cloud.console.why.media import Media
from cloud.console.why.reading import VerdictReader
from cloud.console.why.routes import verdict_router
from cloud.console.why.shares import SharedPages
from cloud.evidence.bundle_facts import BundleShelf
from cloud.evidence.writer import TextWriter
from cloud.explanation_settings import ExplanationSettings
from cloud.jobs.desk import TrainingDesk
from cloud.live_views.desk import LiveViewDesk
from cloud.store import Store
from cloud.store.registry import Registry
from cloud.store.rollout_view import RolloutView, rollout_view
from cloud.system.figures import System
from shared.errors import StorageError, StoreBusyError

LATE_AFTER_S = 60.0
BUSY_RETRY_S = 2

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}


class ConsoleApp(FastAPI):
    """Console, and the streams that its open pages hold."""

    audiences: Audiences

    async def end_streams(self) -> None:
        """End all streams, so that the server can stop at once."""
        await self.audiences.close()


def create_app(
    store: Store,
    registry: Registry,
    *,
    late_after_s: float = LATE_AFTER_S,
    bundle_problems: BundleProblems = dict[str, str],
    writing: Store | None = None,
    explanations: ExplanationSettings | None = None,
    system: System | None = None,
    training: TrainingDesk | None = None,
    live_views: LiveViewDesk | None = None,
) -> ConsoleApp:
    """Return the console over an open store; serve it with its lifespan.

    A device without a heartbeat for `late_after_s` seconds is shown as silent. An empty list shows `bundle_problems`.
    `writing` is a connection of the service for changes, by default `store`. `system` reads the figures of the
    service, `training` holds uploads and training jobs, and `live_views` asks devices for their newest samples.
    """
    explanations = explanations or ExplanationSettings()
    audiences = Audiences(store, late_after_s, bundle_problems)
    verdicts = VerdictReader(store, shelf := BundleShelf(registry.bundle), TextWriter(explanations))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await audiences.close()

    app = ConsoleApp(
        title="Vedette console", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json", lifespan=lifespan
    )
    app.audiences = audiences
    app.add_middleware(SecurityHeaders)
    app.add_exception_handler(StorageError, _storage_error)
    app.add_exception_handler(404, not_found)
    read_rollout = partial(_read_rollout, store)
    media = Media(store)
    routers = (
        api_router(store, verdicts, audiences),
        bundle_router(registry.manifest, read_rollout),
        media.router,
        static_router(),
        _live_router(audiences),
        review_router(store, audiences, bundle_problems),
        label_router(store, audiences),
        verdict_list_router(store, verdicts, audiences, bundle_problems),
        verdict_router(verdicts, audiences, share_days=explanations.share_days),
        SharedPages(store, writing or store, verdicts, media).router,
        fleet_router(store, audiences),
        device_router(store, audiences),
        live_view_router(live_views, shelf),
        group_router(store, audiences),
        notice_router(store, audiences),
        enrolment_router(store, audiences),
        system_router(store, audiences, system),
        training_router(store, audiences, training),
        bundle_page_router(store, BundleReports(store, registry, late_after_s), read_rollout, audiences),
        rollout_router(store, audiences),
        comparison_router(store, audiences),
        round_router(audiences, system),
    )
    for router in routers:
        app.router.routes += router.routes  # include_router would make each route again with the first request
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


def _live_router(audiences: Audiences) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/live")
    async def live(
        request: Request, topics: Annotated[str, Query(max_length=200)] = ",".join(sorted(TOPICS))
    ) -> Response:
        """Send the changes of these topics until the browser leaves."""
        wanted = frozenset(topics.split(","))
        if unknown := wanted - TOPICS:
            raise HTTPException(422, f"Unknown topic {min(unknown)[:50]!r}; known topics: {', '.join(sorted(TOPICS))}.")
        return LiveStream(audiences.of(request).feed, wanted)

    return router


async def _read_rollout(store: Store, name: str) -> RolloutView | None:
    async with store.reading() as connection:
        return await rollout_view(connection, name)


async def _storage_error(_: Request, error: Exception) -> JSONResponse:
    headers = {"Retry-After": str(BUSY_RETRY_S)} if isinstance(error, StoreBusyError) else None
    return JSONResponse({"detail": str(error)}, status_code=503, headers=headers)

"""HTTP API as one ASGI application."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from cloud.account_settings import AccountSettings
from cloud.enrolment import Enrolment
from cloud.evidence.bundle_facts import BundleShelf
from cloud.jobs.desk import TrainingDesk
from cloud.live_views.desk import LiveViewDesk
from cloud.rest.access import Guard
from cloud.rest.api_tokens import api_token_routes
from cloud.rest.audit import audit_routes
from cloud.rest.bundles import bundle_routes
from cloud.rest.comparisons import comparison_routes
from cloud.rest.defect_classes import class_routes
from cloud.rest.devices import device_routes
from cloud.rest.enrolment import enrolment_routes
from cloud.rest.evidence import evidence_routes
from cloud.rest.front import OPENAPI_PATH, ApiFront
from cloud.rest.groups import group_routes
from cloud.rest.labels import label_routes
from cloud.rest.live_views import live_view_routes
from cloud.rest.missed import missed_routes
from cloud.rest.moves import move_routes
from cloud.rest.mutes import mute_routes
from cloud.rest.notices import notice_routes
from cloud.rest.problems import ProblemDetails, add_handlers
from cloud.rest.review import review_routes
from cloud.rest.review_decisions import decision_routes
from cloud.rest.rollouts import rollout_routes
from cloud.rest.shares import share_routes
from cloud.rest.system import system_routes
from cloud.rest.training_jobs import training_routes
from cloud.rest.training_uploads import upload_routes
from cloud.rest.users import user_routes
from cloud.rest.verdicts import verdict_routes
from cloud.rest.webhooks import webhook_routes
from cloud.store import Store
from cloud.store.registry import Registry
from cloud.system.figures import System
from shared.bundle import Bundle
from shared.errors import BundleError


class _Routes(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, with the schema of errors."""
        document = super().openapi()
        document["components"]["schemas"][ProblemDetails.__name__] = ProblemDetails.model_json_schema()
        return document


def create_routes(
    reading: Store,
    writing: Store,
    late_after_s: float,
    registry: Registry | None = None,
    webhook_hosts: tuple[str, ...] = (),
    share_days: float = 7.0,
    enrolment: Enrolment | None = None,
    accounts: AccountSettings | None = None,
    system: System | None = None,
    training: TrainingDesk | None = None,
    live_views: LiveViewDesk | None = None,
) -> FastAPI:
    """Return the routes without their front, which checks tokens."""
    app = _Routes(
        title="Vedette API",
        version="1",
        description="Verdicts, labels, review items, devices, groups, bundles, rollouts, training, notices, webhooks, "
        "accounts and the audit log of one service. Times are RFC 3339 texts in UTC.",
        docs_url=None,
        redoc_url=None,
        openapi_url=OPENAPI_PATH,
    )
    add_handlers(app)
    shelf = BundleShelf(_bundle_reader(registry))
    routers = (
        verdict_routes(reading),
        evidence_routes(reading, shelf),
        share_routes(reading, writing, share_days),
        label_routes(reading, writing),
        review_routes(reading, writing),
        decision_routes(writing),
        class_routes(reading, writing),
        mute_routes(reading, writing),
        missed_routes(reading, writing),
        device_routes(reading, writing, late_after_s),
        live_view_routes(live_views, shelf),
        enrolment_routes(reading, writing, enrolment),
        move_routes(writing, late_after_s),
        group_routes(reading, writing, late_after_s),
        bundle_routes(reading, writing, registry, late_after_s),
        rollout_routes(reading, writing, registry),
        comparison_routes(reading, writing),
        training_routes(reading, training),
        upload_routes(training),
        notice_routes(reading),
        webhook_routes(reading, writing, webhook_hosts),
        audit_routes(reading),
        user_routes(reading, writing, accounts or AccountSettings()),
        api_token_routes(reading, writing),
        system_routes(system),
    )
    for router in routers:
        app.router.routes += router.routes
    return app


def create_api(
    reading: Store,
    writing: Store,
    *,
    late_after_s: float,
    registry: Registry | None = None,
    webhook_hosts: tuple[str, ...] = (),
    share_days: float = 7.0,
    enrolment: Enrolment | None = None,
    accounts: AccountSettings | None = None,
    system: System | None = None,
    training: TrainingDesk | None = None,
    live_views: LiveViewDesk | None = None,
) -> ASGIApp:
    """Return the API over two connections to one open store; the first is bounded for clients.

    A device without a heartbeat for `late_after_s` seconds is silent. `registry` verifies bundles before they are
    rolled out. `webhook_hosts` are the hosts that webhooks may name. Links to verdicts are valid for at most
    `share_days`. `enrolment` makes tokens for devices. `training` holds uploads and training jobs.
    `live_views` asks devices for their newest samples.
    """
    routes = create_routes(
        reading,
        writing,
        late_after_s,
        registry,
        webhook_hosts,
        share_days,
        enrolment,
        accounts,
        system,
        training,
        live_views,
    )
    return ApiFront(routes, Guard(reading, writing))


def _bundle_reader(registry: Registry | None) -> Callable[[str], Awaitable[Bundle]]:
    async def without(bundle_id: str) -> Bundle:
        raise BundleError(f"There is no registry that has {bundle_id}.")

    return registry.bundle if registry is not None else without

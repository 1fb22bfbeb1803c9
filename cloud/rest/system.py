"""Routes of the figures of the service, and of its settings in force."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from cloud.moments import with_rfc3339
from cloud.rest.access import needs
from cloud.rest.problems import Problem
from cloud.rest.routers import api_router
from cloud.store.api_tokens import Scope
from cloud.system.figures import System


class SettingsText(BaseModel):
    """Settings in force as TOML, with files of secrets by their names alone."""

    toml: str


def system_routes(system: System | None) -> APIRouter:
    """Return the routes; without `system` they answer 409."""
    router = api_router("system")

    def known() -> System:
        if system is None:
            raise Problem(409, "no-figures", "This process has no figures of the service.")
        return system

    @router.get("/system", **needs(Scope.SYSTEM_READ, 409))
    async def figures() -> dict[str, Any]:
        """Return throughput, latency, queues, storage, and the load of the machine that answers."""
        found: dict[str, Any] = with_rfc3339((await known().figures()).model_dump(mode="json"))
        return found

    @router.get("/system/settings", response_model=SettingsText, **needs(Scope.SYSTEM_READ, 409))
    async def settings() -> dict[str, str]:
        """Return the settings in force; secrets are in files of their own, and are not read."""
        return {"toml": known().settings.as_text()}

    return router

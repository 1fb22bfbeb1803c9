"""Pages of the system: figures of the service, audit log, accounts, API tokens, settings in force."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from cloud.accounts.identity import signed_in
from cloud.console.audience import Audiences
from cloud.console.page import page, part
from cloud.console.rendering import render
from cloud.console.system.audit import AuditQuery, read_audit
from cloud.console.system.words import figures_in_words
from cloud.store import Store
from cloud.store.api_tokens import Scope, list_api_tokens
from cloud.store.system_queries import known_sites
from cloud.store.users import list_users
from cloud.system.figures import System
from cloud.user_roles import UserRole

NOT_HERE = "This process has no figures of the service."
ReadContent = Callable[[Request], Coroutine[Any, Any, dict[str, Any]]]
"""Reads the values of a page's template."""


def system_router(store: Store, audiences: Audiences, system: System | None) -> APIRouter:
    """Return the pages and the part of the figures; `system` is None where a process has no figures."""
    router = APIRouter(include_in_schema=False)

    async def figures(request: Request) -> str:
        async def read() -> str:
            shown = figures_in_words(await system.figures()) if system is not None else None
            return render("system/figures.html", figures=shown, not_here=NOT_HERE)

        return await audiences.of(request).snapshots.shared("system", read)

    async def overview(request: Request) -> dict[str, Any]:
        return {"figures": await figures(request)}

    async def audit(request: Request) -> dict[str, Any]:
        return await read_audit(store, AuditQuery.parse(request.query_params))

    async def users(request: Request) -> dict[str, Any]:
        person = signed_in(request.scope)
        async with store.reading() as connection:
            sites = await known_sites(connection)
        own = person.name if person is not None else ""
        return {"users": await list_users(store), "roles": list(UserRole), "sites": sites, "own": own}

    async def tokens(_: Request) -> dict[str, Any]:
        return {"tokens": await list_api_tokens(store), "scopes": [scope.value for scope in Scope]}

    async def settings(_: Request) -> dict[str, Any]:
        return {"toml": system.settings.as_text() if system is not None else "", "not_here": NOT_HERE}

    _add_pages(
        router,
        audiences,
        {"": overview, "/audit": audit, "/users": users, "/tokens": tokens, "/settings": settings},
    )

    @router.get("/parts/system")
    async def figures_part(request: Request) -> HTMLResponse:
        """Answer with the figures alone."""
        return part(await figures(request))

    return router


def _add_pages(router: APIRouter, audiences: Audiences, pages: dict[str, ReadContent]) -> None:
    def add(path: str, read_content: ReadContent) -> None:
        template = f"system/{path.removeprefix('/') or 'overview'}.html"

        @router.get(f"/system{path}")
        async def answer(request: Request) -> HTMLResponse:
            """Answer with the page."""

            async def read() -> tuple[int, dict[str, Any]]:
                return 200, await read_content(request)

            return await page(request, audiences.of(request), template, read, tab=f"/system{path}")

    for path, read_content in pages.items():
        add(path, read_content)

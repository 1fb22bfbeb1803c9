"""Routes of sign-in, one-time links and the own account."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cloud.accounts.context import AccountContext
from cloud.accounts.identity import signed_in
from cloud.accounts.links import link_routes
from cloud.accounts.own_account import own_account_routes
from cloud.accounts.pages import STATIC_PATH, static_file, words_page
from cloud.accounts.provider_routes import provider_routes
from cloud.accounts.sign_in import sign_in_routes
from shared.errors import StorageError

PATHS = ("/sign-in", "/sign-out", "/signed-out", "/link/", "/account", "/api/account")
"""Beginnings of the paths that belong to this application, beside STATIC_PATH."""


def create_accounts_app(context: AccountContext) -> Starlette:
    """Return the application; it stands behind `SessionGuard`."""
    routes = [
        *sign_in_routes(context),
        *provider_routes(context),
        *link_routes(context),
        *own_account_routes(context),
        Route("/api/account", _own_facts),
        Route(STATIC_PATH + "{name}", static_file),
    ]
    return Starlette(routes=routes, exception_handlers={StorageError: _storage_failed})


async def _own_facts(request: Request) -> Response:
    """Answer with the signed-in account, and the token that requests which change something must bring."""
    person = signed_in(request.scope)
    if person is None:
        return JSONResponse({"detail": "Sign-in is off."}, 404)
    facts = {"name": person.name, "role": person.role, "sites": list(person.sites), "csrf_token": person.csrf_token}
    return JSONResponse(facts, headers={"Cache-Control": "no-store"})


async def _storage_failed(request: Request, _: Exception) -> Response:
    return words_page(request, "Not now", "The store cannot be used: see the log of the service.", 503)

"""Everything for people on the console's port: sign-in in front of the console, its JSON and the HTTP API."""

import contextlib
import json
import secrets
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import request_response

from cloud.accounts.access_table import API_PREFIX
from cloud.accounts.app import PATHS, create_accounts_app
from cloud.accounts.context import AccountContext
from cloud.accounts.guard import SessionGuard
from cloud.accounts.pages import STATIC_PATH, words_page
from cloud.accounts.passwords import Passwords
from cloud.accounts.sessions import SessionBook
from cloud.service.data_dir import SERVICE_FILE
from cloud.service.http import AsgiApp, ByPath
from cloud.settings import CloudSettings
from cloud.store import Store
from cloud.store.account_links import LinkPurpose, add_link
from cloud.store.users import has_users
from shared.addresses import Address


def create_people_app(
    settings: CloudSettings, reading: Store, writing: Store, *, api: AsgiApp, console: AsgiApp | None
) -> AsgiApp:
    """Return the application; `reading` is a connection for sessions alone, so that no page holds up a sign-in."""
    sessions = SessionBook(reading, writing, settings.accounts)
    context = AccountContext(settings.accounts, reading, writing, sessions, Passwords(settings.accounts))
    accounts = create_accounts_app(context)
    pages = dict.fromkeys(PATHS, accounts if settings.sign_in else request_response(_sign_in_is_off))
    app = ByPath({API_PREFIX: api, STATIC_PATH: accounts, **pages}, console)
    unknown = _unknown if console is None else _unknown_page
    return SessionGuard(app, reading, sessions if settings.sign_in else None, unknown)


async def first_admin_link(store: Store, settings: CloudSettings, console_url: str) -> str | None:
    """Return the URL of a new one-time link that makes the first account; None if there is one, or sign-in is off."""
    if not settings.sign_in or await has_users(store):
        return None
    secret = secrets.token_urlsafe(32)
    await add_link(store, secret, LinkPurpose.FIRST_ADMIN, valid_s=settings.accounts.link_valid_s)
    return link_url(settings, console_url, secret)


def console_url(settings: CloudSettings) -> str:
    """Return the URL of the console of a service that runs, or of one that will run with these settings."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        if url := json.loads((settings.data_dir / SERVICE_FILE).read_bytes())["console_url"]:
            return str(url)
    scheme = "https" if settings.console_certificate is not None else "http"
    return f"{scheme}://{Address.parse(settings.console_listen).from_here}/"


def link_url(settings: CloudSettings, console_url: str, secret: str) -> str:
    """Return the URL of a one-time link as browsers reach the console: behind proxies under its first name."""
    if settings.trusted_proxies and settings.console_names:
        console_url = f"https://{settings.console_names[0]}/"
    parts = urlsplit(console_url)
    console_url = f"{parts.scheme}://{Address.parse(parts.netloc).from_here}/" if parts.port else console_url
    return f"{console_url}link/{secret}"


async def _sign_in_is_off(request: Request) -> Response:
    return words_page(request, "No accounts", "Sign-in is off on this machine (sign_in = false in cloud.toml).", 404)


async def _unknown(request: Request) -> Response:
    return JSONResponse({"detail": f"There is nothing at {request.url.path[:200]}."}, 404)


async def _unknown_page(request: Request) -> Response:
    from cloud.console.not_found import not_found  # FastAPI imports slowly

    return await not_found(request, ValueError())

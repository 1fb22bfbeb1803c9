"""Guard in front of everything for people on the console's port: session, role, sites and CSRF token of a request."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urlencode

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cloud.accounts.access_table import API_PREFIX, Csrf, RouteAccess, route_of
from cloud.accounts.identity import ANYBODY, SCOPE_KEY, SignedIn
from cloud.accounts.pages import wants_html, words_page
from cloud.accounts.requests import NOT_PRIVATE, csrf_token, is_private, own_path, same_text
from cloud.accounts.sessions import OpenConnections, SessionBook
from cloud.accounts.sites import outside_sites
from cloud.store import Store
from cloud.store.sessions import Session
from shared.errors import StorageError, StoreBusyError

CSRF_HEADER = "x-csrf-token"
BUSY_RETRY_S = 2
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
Unknown = Callable[[Request], Awaitable[Response]]


class SessionGuard:
    """ASGI middleware that checks each request against the table of routes.

    Without `sessions` sign-in is off, and everybody may look. Unknown routes are answered by `unknown`. Requests of the
    HTTP API with the header Authorization pass: the API checks their tokens.
    """

    def __init__(self, app: ASGIApp, store: Store, sessions: SessionBook | None, unknown: Unknown) -> None:
        self._app, self._store, self._sessions, self._unknown = app, store, sessions, unknown
        self._connections = OpenConnections(sessions, store) if sessions is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        found = route_of(scope.get("method", "GET"), scope["path"])
        if (found is not None and found[0].role is None) or _has_token(scope):
            await self._app(scope, receive, send)
            return
        try:
            refusal, session = await self._check(scope, found)
        except StorageError as error:
            refusal, session = _storage_failed(error), None
        if refusal is not None:
            await _refuse(refusal, scope, receive, send)
        elif session is not None and self._connections is not None and _stays_open(scope, found):
            await self._connections.run(session, self._app, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _check(
        self, scope: Scope, found: tuple[RouteAccess, dict[str, str]] | None
    ) -> tuple[Response | None, Session | None]:
        """Return the answer to a request that is refused, and the session of one that is not."""
        request = Request(scope) if scope["type"] == "http" else None
        if self._sessions is None:
            scope[SCOPE_KEY] = person = ANYBODY
            session = None
        else:
            holder = await self._sessions.find(scope) if is_private(scope) else None
            if holder is None:
                return self._signed_out(scope, request), None
            session = holder[1]
            user = session.user
            token = csrf_token(holder[0])
            scope[SCOPE_KEY] = person = SignedIn(user.name, user.role, user.sites, session.session_id, token)
        if found is None:
            return await self._unknown(request) if request is not None else Response(status_code=403), None
        return await self._refusal(scope, person, *found), session

    def _signed_out(self, scope: Scope, request: Request | None) -> Response | None:
        """Return the answer to a request without a session; None leaves it to the HTTP API."""
        if request is None:
            return Response(status_code=403)
        if scope["path"].startswith(API_PREFIX):
            return None
        if not is_private(scope):
            return _problem(request, 403, NOT_PRIVATE)
        if request.method == "GET" and wants_html(request):
            query = scope["query_string"].decode("latin-1")
            path = own_path(scope["path"] + (f"?{query}" if query else ""))
            return RedirectResponse("/sign-in" + (f"?{urlencode({'next': path})}" if path != "/" else ""), 303)
        return JSONResponse({"detail": "Sign in first: there is no session, or it has ended."}, 401)

    async def _refusal(
        self, scope: Scope, person: SignedIn, entry: RouteAccess, parameters: dict[str, str]
    ) -> Response | None:
        """Return the answer to a request that the person may not make, None for one that is allowed."""
        request = Request(scope) if scope["type"] == "http" else None
        needed = entry.role
        if needed is not None and not person.role.covers(needed):
            return _problem(request, 403, f"This needs the role {needed}, and this account has the role {person.role}.")
        if not _has_proof(scope, person, entry):
            return _problem(request, 403, "The request has no valid token of this session: load the page again.")
        if person.sites and (reason := await outside_sites(self._store, scope, person, entry, parameters)):
            return _problem(request, 403, reason)
        return None


def _stays_open(scope: Scope, found: tuple[RouteAccess, dict[str, str]] | None) -> bool:
    """Return whether the connection of a request may outlive its session: every web socket, and streams."""
    return scope["type"] == "websocket" or (found is not None and found[0].stays_open)


def _has_proof(scope: Scope, person: SignedIn, entry: RouteAccess) -> bool:
    """Return whether a request changes nothing, or comes from a page of this console."""
    if scope.get("method", "GET") in _SAFE_METHODS or entry.csrf is Csrf.FORM:
        return True
    return same_text(Headers(raw=list(scope["headers"])).get(CSRF_HEADER, ""), person.csrf_token)


def _has_token(scope: Scope) -> bool:
    """Return whether a request of the HTTP API brings a token of its own, which no browser adds by itself."""
    return scope["path"].startswith(API_PREFIX) and any(name == b"authorization" for name, _ in scope["headers"])


def _storage_failed(error: StorageError) -> Response:
    if isinstance(error, StoreBusyError):
        return JSONResponse({"detail": str(error)}, 503, headers={"Retry-After": str(BUSY_RETRY_S)})
    return JSONResponse({"detail": "The store cannot be used: see the log of the service."}, 503)


def _problem(request: Request | None, status: int, reason: str) -> Response:
    """Return a refusal: a page for a browser that opens one, JSON for programs."""
    if request is not None and request.method == "GET" and wants_html(request):
        return words_page(request, HTTPStatus(status).phrase, reason, status)
    return JSONResponse({"detail": reason}, status)


async def _refuse(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})  # before it is accepted: answered with 403
    else:
        await response(scope, receive, send)

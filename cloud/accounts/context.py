"""What all routes of accounts share: stores, sessions, passwords and the limits of attempts."""

import math
import secrets
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from cloud.account_settings import AccountSettings
from cloud.accounts.failure_limit import AttemptLimits
from cloud.accounts.identity import signed_in
from cloud.accounts.pages import page
from cloud.accounts.passwords import Passwords
from cloud.accounts.requests import (
    FORM_COOKIE,
    client_address,
    csrf_token,
    delete_cookie,
    own_path,
    read_cookie,
    read_form,
    same_text,
    set_cookie,
)
from cloud.accounts.sessions import SessionBook
from cloud.store import Store
from cloud.store.sessions import NewSession
from shared.logs import EventLog

FORM_VALID_S = 12 * 3600.0
TOO_MANY = "Too many failed attempts"
BUSY = "Too many people sign in at this moment: try again in a few seconds."
EXPIRED = "The form has expired: try again."
_LOG = EventLog("accounts")


@dataclass(frozen=True)
class AccountContext:
    """Shared parts of the routes; `reading` is bounded for people, `writing` is the service's own connection."""

    settings: AccountSettings
    reading: Store
    writing: Store
    sessions: SessionBook
    passwords: Passwords
    attempts: AttemptLimits = field(default_factory=AttemptLimits)

    def form_page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        """Return a page with a form for somebody without a session, whose token belongs to a cookie."""
        secret = read_cookie(request.scope, FORM_COOKIE) or secrets.token_urlsafe(32)
        response = page(request, template, status, csrf=csrf_token(secret), **values)
        set_cookie(response, request.scope, FORM_COOKIE, secret, FORM_VALID_S)
        return response

    async def read_form(self, request: Request) -> dict[str, str] | None:
        """Return the form of a request that brings the token of its session or cookie; None for any other."""
        person = signed_in(request.scope)
        secret = read_cookie(request.scope, FORM_COOKIE)
        expected = person.csrf_token if person is not None else csrf_token(secret) if secret else ""
        form = await read_form(request)
        return form if form is not None and same_text(form.get("csrf", ""), expected) else None

    def begin_attempt(self, request: Request, account: str = "") -> float:
        """Count an attempt as failed until `attempt_succeeded`; return the seconds to wait if it is refused."""
        return self.attempts.begin(client_address(request.scope), account)

    def attempt_succeeded(self, request: Request, account: str = "") -> None:
        """Take back the count of an attempt."""
        self.attempts.succeeded(client_address(request.scope), account)

    def refused(self, request: Request, reason: str, account: str = "") -> None:
        """Log a refused attempt, without anything that was typed as a password."""
        _LOG.warning("sign_in_refused", address=client_address(request.scope), account=account, reason=reason)

    def enter(self, request: Request, new: NewSession, path: str = "/") -> Response:
        """Answer to somebody whose session has just been stored."""
        response = RedirectResponse(own_path(path), 303)
        self.sessions.hand_over(response, request.scope, new)
        delete_cookie(response, request.scope, FORM_COOKIE)
        _LOG.info("signed_in", account=new.user_name, method=new.method, address=new.address)
        return response


def too_many(wait_s: float) -> str:
    """Return the sentence on a refused attempt."""
    minutes = math.ceil(wait_s / 60)
    return f"{TOO_MANY}: try again in {'a minute' if minutes <= 1 else f'{minutes} minutes'}."


def retry_after(response: Response, wait_s: float) -> Response:
    """Name the seconds to wait in a response."""
    response.headers["Retry-After"] = str(math.ceil(max(1.0, wait_s)))
    return response

"""Routes of the sign-in with an OpenID Connect provider."""

import base64
import json

from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from cloud.accounts.context import AccountContext, retry_after, too_many
from cloud.accounts.pages import words_page
from cloud.accounts.provider import Attempt, OidcProvider, ProvidedAccount
from cloud.accounts.requests import (
    NOT_PRIVATE,
    PROVIDER_COOKIE,
    delete_cookie,
    is_https,
    is_private,
    own_path,
    read_cookie,
    same_text,
    set_cookie,
)
from cloud.store.sessions import start_session
from cloud.store.users import NAME, User, actor_of, add_user, change_role, find_subject, find_user
from shared.errors import SettingsError, SignInError
from shared.logs import EventLog

ATTEMPT_S = 600.0
TITLE = "This sign-in was refused"
FOREIGN = "This sign-in was not started in this browser, or too long ago: start again."
TAKEN = "An account of this name exists already, and it does not belong to the provider: ask an administrator."
DISABLED = "This account is disabled: ask an administrator."
_LOG = EventLog("accounts")


def provider_routes(context: AccountContext) -> list[Route]:
    """Return the routes; none without a provider in the settings."""
    if not context.settings.oidc.issuer:
        return []
    provider = OidcProvider(context.settings.oidc)

    async def start(request: Request) -> Response:
        if not is_private(request.scope):
            return words_page(request, "HTTPS is needed", NOT_PRIVATE, 403)
        attempt = Attempt.new(own_path(request.query_params.get("next", "/")))
        try:
            response = RedirectResponse(await provider.start(attempt, _return_url(request)), 303)
        except SignInError as error:
            return _refused(context, request, error)
        kept = base64.urlsafe_b64encode(json.dumps(attempt.to_dict()).encode()).decode()
        set_cookie(response, request.scope, PROVIDER_COOKIE, kept, ATTEMPT_S)
        return response

    async def finish(request: Request) -> Response:
        if wait_s := context.begin_attempt(request):
            return retry_after(words_page(request, "Not now", too_many(wait_s), 429), wait_s)
        try:
            response = await _finish(context, provider, request)
        except (SignInError, SettingsError) as error:
            response = _refused(context, request, error)
        delete_cookie(response, request.scope, PROVIDER_COOKIE)
        return response

    return [Route("/sign-in/provider", start), Route("/sign-in/provider/return", finish)]


async def _finish(context: AccountContext, provider: OidcProvider, request: Request) -> Response:
    attempt = _read_attempt(read_cookie(request.scope, PROVIDER_COOKIE))
    if attempt is None or not same_text(request.query_params.get("state", ""), attempt.state):
        raise SignInError(FOREIGN)
    if not (code := request.query_params.get("code", "")):
        raise SignInError("The provider refused the sign-in.")
    account = await provider.finish(attempt, code, _return_url(request))
    async with context.writing.writing() as connection:
        name = await _stored(connection, account)
        new = context.sessions.new(request.scope, name, "provider")
        await start_session(connection, new)
    context.attempt_succeeded(request)
    return context.enter(request, new, attempt.next)


async def _stored(connection: AsyncConnection, account: ProvidedAccount) -> str:
    """Return the name of the account here, added or with the role that it has now; raises SignInError."""
    user: User | None = await find_subject(connection, account.subject)
    if user is None:
        if not NAME.fullmatch(account.name):
            raise SignInError("The provider gives this account no name that can be used here.")
        if await find_user(connection, account.name) is not None:
            raise SignInError(TAKEN)
        actor = actor_of(account.name)
        await add_user(connection, account.name, account.role, actor=actor, subject=account.subject)
        return account.name
    if user.disabled_at_s is not None:
        raise SignInError(DISABLED)
    await change_role(connection, user, account.role, None, actor=user.actor)
    return user.name


def _refused(context: AccountContext, request: Request, error: SignInError | SettingsError) -> Response:
    context.refused(request, "provider")
    if isinstance(error, SettingsError):
        _LOG.error("provider_settings", error=error)
        return words_page(request, TITLE, "The settings of the provider are wrong: see the log of the service.", 503)
    return words_page(request, TITLE, str(error), 403)


def _return_url(request: Request) -> str:
    """Return the address that the provider sends the browser to; OriginCheck has compared the host."""
    scheme = "https" if is_https(request.scope) else "http"
    return f"{scheme}://{request.headers.get('host', '')}/sign-in/provider/return"


def _read_attempt(text: str) -> Attempt | None:
    try:
        values = json.loads(base64.urlsafe_b64decode(text.encode()))
        attempt = Attempt(**values)
    except (ValueError, TypeError):
        return None
    return attempt if all(isinstance(value, str) and value for value in attempt.to_dict().values()) else None

"""Sign-in with name and password, and sign-out."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from cloud.accounts.context import BUSY, EXPIRED, AccountContext, retry_after, too_many
from cloud.accounts.identity import signed_in
from cloud.accounts.pages import page, words_page
from cloud.accounts.requests import NOT_PRIVATE, SESSION_COOKIE, delete_cookie, is_private, own_path
from cloud.store.sessions import end_sessions, start_session
from cloud.store.users import MAX_NAME_CHARACTERS, find_user, has_users, replace_hash

WRONG = "Name or password is wrong."
BUSY_RETRY_S = 5


def sign_in_routes(context: AccountContext) -> list[Route]:
    """Return the routes of sign-in and sign-out."""

    async def form(request: Request) -> Response:
        if not is_private(request.scope):
            return words_page(request, "HTTPS is needed", NOT_PRIVATE, 403)
        return await _form(context, request, request.query_params.get("next", "/"))

    async def sign_in(request: Request) -> Response:
        if not is_private(request.scope):
            return words_page(request, "HTTPS is needed", NOT_PRIVATE, 403)
        return await _sign_in(context, request)

    async def sign_out(request: Request) -> Response:
        person = signed_in(request.scope)
        if person is None or await context.read_form(request) is None:
            return words_page(request, "Still signed in", EXPIRED, 403)
        only = {"only": person.session_id, "reason": "sign-out"}
        await end_sessions(context.writing, person.name, actor=person.actor, **only)
        context.sessions.forget()
        response = RedirectResponse("/signed-out", 303)
        response.headers["Clear-Site-Data"] = '"cache"'  # pictures of samples
        delete_cookie(response, request.scope, SESSION_COOKIE)
        return response

    async def signed_out(request: Request) -> Response:
        return page(request, "signed_out.html")

    return [
        Route("/sign-in", form, methods=["GET"]),
        Route("/sign-in", sign_in, methods=["POST"]),
        Route("/sign-out", sign_out, methods=["POST"]),
        Route("/signed-out", signed_out),
    ]


async def _form(
    context: AccountContext, request: Request, path: str, problem: str = "", status: int = 200, name: str = ""
) -> Response:
    provider = context.settings.oidc.label if context.settings.oidc.issuer else ""
    values = {"next": own_path(path), "problem": problem, "name": name, "provider": provider}
    return context.form_page(request, "sign_in.html", status, is_new=not await has_users(context.reading), **values)


async def _sign_in(context: AccountContext, request: Request) -> Response:
    fields = await context.read_form(request)
    if fields is None:
        return await _form(context, request, "/", EXPIRED, 403)
    path, password = fields.get("next", "/"), fields.get("password", "")
    name = fields.get("name", "").strip().lower()[:MAX_NAME_CHARACTERS].replace("\0", "")
    if context.passwords.is_busy:
        return retry_after(await _form(context, request, path, BUSY, 503, name), BUSY_RETRY_S)
    if wait_s := context.begin_attempt(request, name):
        context.refused(request, "too many attempts", name)
        return retry_after(await _form(context, request, path, too_many(wait_s), 429, name), wait_s)
    async with context.reading.reading() as connection:
        found = await find_user(connection, name)
    user, stored = found if found is not None else (None, None)
    is_right = await context.passwords.verify(stored, password)
    if user is None or stored is None or not is_right or user.disabled_at_s is not None:
        context.refused(request, "wrong name or password", name)
        return await _form(context, request, path, WRONG, 401, name)
    context.attempt_succeeded(request, name)
    newer = await context.passwords.hash(password) if context.passwords.is_outdated(stored) else None
    new = context.sessions.new(request.scope, name, "password")
    async with context.writing.writing() as connection:
        now = await find_user(connection, name)
        if now is None or now[1] != stored or now[0].disabled_at_s is not None:  # changed during the check
            return await _form(context, request, path, WRONG, 401, name)
        if newer is not None:
            await replace_hash(connection, name, stored, newer)
        await start_session(connection, new)
    return context.enter(request, new, path)

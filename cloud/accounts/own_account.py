"""Page of the own account: password and sessions."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from cloud.accounts.context import BUSY, EXPIRED, AccountContext, retry_after, too_many
from cloud.accounts.identity import SignedIn, signed_in
from cloud.accounts.pages import page, words_page
from cloud.accounts.passwords import password_problem
from cloud.store.sessions import Session, end_sessions, sessions_of
from cloud.store.users import change_password, find_user
from cloud.words import moment_words

WRONG = "The present password is wrong."
DIFFERENT = "The two new passwords are different."
CHANGED = "The password has been changed. All other sessions of this account have ended."
BUSY_RETRY_S = 5
FormAction = Callable[[Request, SignedIn, dict[str, str]], Awaitable[Response]]
"""What a form with a valid token does, given its fields."""


def own_account_routes(context: AccountContext) -> list[Route]:
    """Return the routes of the own account."""

    async def show(request: Request) -> Response:
        person = signed_in(request.scope)
        return await _show(context, request, person) if person is not None else _nobody(request)

    async def checked(request: Request, act: FormAction) -> Response:
        person = signed_in(request.scope)
        if person is None:
            return _nobody(request)
        fields = await context.read_form(request)
        if fields is None:
            return await _show(context, request, person, EXPIRED, 403)
        return await act(request, person, fields)

    async def set_password(request: Request) -> Response:
        return await checked(request, partial(_set_password, context))

    async def end(request: Request) -> Response:
        return await checked(request, end_wanted)

    async def end_wanted(_: Request, person: SignedIn, fields: dict[str, str]) -> Response:
        wanted = fields.get("session", "")
        which = {"keep": person.session_id} if wanted == "others" else {"only": wanted or "-"}
        await end_sessions(context.writing, person.name, actor=person.actor, reason="ended by the account", **which)
        context.sessions.forget()
        return RedirectResponse("/account", 303)

    return [
        Route("/account", show),
        Route("/account/password", set_password, methods=["POST"]),
        Route("/account/sessions", end, methods=["POST"]),
    ]


async def _show(
    context: AccountContext, request: Request, person: SignedIn, problem: str = "", status: int = 200, notice: str = ""
) -> Response:
    async with context.reading.reading() as connection:
        found = await find_user(connection, person.name)
    rows = [_row(session, person) for session in await sessions_of(context.reading, person.name)]
    has_password = found is not None and found[1] is not None
    texts = {"problem": problem, "notice": notice}
    return page(request, "account.html", status, has_password=has_password, sessions=rows, **texts)


def _row(session: Session, person: SignedIn) -> dict[str, Any]:
    return {
        "id": session.session_id,
        "is_this": session.session_id == person.session_id,
        "address": session.address,
        "browser": session.browser,
        "started": moment_words(session.started_at_s),
        "seen": moment_words(session.seen_at_s),
    }


async def _set_password(
    context: AccountContext, request: Request, person: SignedIn, fields: dict[str, str]
) -> Response:
    wanted = fields.get("password", "")
    problem = password_problem(wanted, person.name) or ("" if wanted == fields.get("again", "") else DIFFERENT)
    if problem:
        return await _show(context, request, person, problem, 422)
    if context.passwords.is_busy:
        return retry_after(await _show(context, request, person, BUSY, 503), BUSY_RETRY_S)
    if wait_s := context.begin_attempt(request, person.name):
        return retry_after(await _show(context, request, person, too_many(wait_s), 429), wait_s)
    async with context.reading.reading() as connection:
        found = await find_user(connection, person.name)
    stored = found[1] if found is not None else None
    if not await context.passwords.verify(stored, fields.get("present", "")):
        context.refused(request, "wrong present password", person.name)
        return await _show(context, request, person, WRONG, 403)
    context.attempt_succeeded(request, person.name)
    hashed = await context.passwords.hash(wanted)
    async with context.writing.writing() as connection:
        await change_password(connection, person.name, hashed, actor=person.actor, keep_session=person.session_id)
    context.sessions.forget()
    return await _show(context, request, person, notice=CHANGED)


def _nobody(request: Request) -> Response:
    return words_page(request, "No account", "Sign-in is off: there are no accounts.", 404)

"""Page of the own account: password and sessions."""

from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from cloud.accounts.desk import BUSY, EXPIRED, TOO_MANY, AccountDesk, retry_after
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


def own_account_routes(desk: AccountDesk) -> list[Route]:
    """Return the routes of the own account."""

    async def show(request: Request) -> Response:
        person = signed_in(request.scope)
        return await _show(desk, request, person) if person is not None else _nobody(request)

    async def set_password(request: Request) -> Response:
        person = signed_in(request.scope)
        if person is None:
            return _nobody(request)
        fields = await desk.read_form(request)
        if fields is None:
            return await _show(desk, request, person, EXPIRED, 403)
        return await _set_password(desk, request, person, fields)

    async def end(request: Request) -> Response:
        person = signed_in(request.scope)
        if person is None:
            return _nobody(request)
        fields = await desk.read_form(request)
        if fields is None:
            return await _show(desk, request, person, EXPIRED, 403)
        wanted = fields.get("session", "")
        which = {"keep": person.session_id} if wanted == "others" else {"only": wanted or "-"}
        await end_sessions(desk.writing, person.name, actor=person.actor, reason="ended by the account", **which)
        desk.sessions.forget()
        return RedirectResponse("/account", 303)

    return [
        Route("/account", show),
        Route("/account/password", set_password, methods=["POST"]),
        Route("/account/sessions", end, methods=["POST"]),
    ]


async def _show(
    desk: AccountDesk, request: Request, person: SignedIn, problem: str = "", status: int = 200, notice: str = ""
) -> Response:
    async with desk.reading.reading() as connection:
        found = await find_user(connection, person.name)
    rows = [_row(session, person) for session in await sessions_of(desk.reading, person.name)]
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


async def _set_password(desk: AccountDesk, request: Request, person: SignedIn, fields: dict[str, str]) -> Response:
    wanted = fields.get("password", "")
    problem = password_problem(wanted, person.name) or ("" if wanted == fields.get("again", "") else DIFFERENT)
    if problem:
        return await _show(desk, request, person, problem, 422)
    if desk.passwords.is_busy:
        return retry_after(await _show(desk, request, person, BUSY, 503), BUSY_RETRY_S)
    if wait_s := desk.begin_attempt(request, person.name):
        return retry_after(await _show(desk, request, person, TOO_MANY, 429), wait_s)
    async with desk.reading.reading() as connection:
        found = await find_user(connection, person.name)
    stored = found[1] if found is not None else None
    if not await desk.passwords.verify(stored, fields.get("present", "")):
        desk.refused(request, "wrong present password", person.name)
        return await _show(desk, request, person, WRONG, 403)
    desk.attempt_succeeded(request, person.name)
    hashed = await desk.passwords.hash(wanted)
    async with desk.writing.writing() as connection:
        await change_password(connection, person.name, hashed, actor=person.actor, keep_session=person.session_id)
    desk.sessions.forget()
    return await _show(desk, request, person, notice=CHANGED)


def _nobody(request: Request) -> Response:
    return words_page(request, "No account", "Sign-in is off: there are no accounts.", 404)

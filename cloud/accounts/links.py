"""Pages of one-time links: the first admin, a new password, a sign-in. Opening one spends nothing."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloud.accounts.context import BUSY, EXPIRED, AccountContext, retry_after, too_many
from cloud.accounts.pages import words_page
from cloud.accounts.passwords import password_problem
from cloud.accounts.requests import NOT_PRIVATE, client_address, is_private
from cloud.store.account_links import AccountLink, LinkPurpose, find_link, spend_link
from cloud.store.sessions import start_session
from cloud.store.users import MAX_NAME_CHARACTERS, NAME, NAME_RULE, actor_of, add_user, change_password, find_user
from cloud.user_roles import UserRole

VOID = "This link is unknown, has been used, or has expired: ask an administrator for another one."
DIFFERENT = "The two passwords are different."
BUSY_RETRY_S = 5


def link_routes(context: AccountContext) -> list[Route]:
    """Return the routes of one-time links."""

    async def handle(request: Request) -> Response:
        if not is_private(request.scope):
            return words_page(request, "HTTPS is needed", NOT_PRIVATE, 403)
        if wait_s := context.attempts.wait_s(client_address(request.scope)):
            return retry_after(words_page(request, "Not now", too_many(wait_s), 429), wait_s)
        secret = request.path_params["secret"]
        async with context.reading.reading() as connection:
            link = await find_link(connection, secret)
        if link is None:
            context.attempts.failed(client_address(request.scope))
            context.refused(request, "unknown link")
            return words_page(request, "This link cannot be used", VOID, 404)
        if request.method == "GET":
            return _form(context, request, link)
        fields = await context.read_form(request)
        if fields is None:
            return _form(context, request, link, EXPIRED, 403)
        return await _spend(context, request, secret, link, fields)

    return [Route("/link/{secret}", handle, methods=["GET", "POST"])]


def _form(
    context: AccountContext, request: Request, link: AccountLink, problem: str = "", status: int = 200, name: str = ""
) -> Response:
    values = {"purpose": link.purpose.value, "name": link.user_name or name, "problem": problem}
    return context.form_page(request, "link.html", status, **values)


async def _spend(
    context: AccountContext, request: Request, secret: str, link: AccountLink, fields: dict[str, str]
) -> Response:
    """Do what the link is for, in one transaction with its end, and sign in."""
    name = link.user_name or fields.get("name", "").strip().lower()
    hashed = ""
    if link.purpose is not LinkPurpose.SIGN_IN:
        password = fields.get("password", "")
        problem = "" if NAME.fullmatch(name) else NAME_RULE
        problem = problem or password_problem(password, name)
        problem = problem or ("" if password == fields.get("again", "") else DIFFERENT)
        if problem:
            return _form(context, request, link, problem, 422, name[:MAX_NAME_CHARACTERS])
        if context.passwords.is_busy:
            return retry_after(_form(context, request, link, BUSY, 503, name), BUSY_RETRY_S)
        hashed = await context.passwords.hash(password)
    new = context.sessions.new(request.scope, name, f"link: {link.purpose}")
    async with context.writing.writing() as connection:
        spent = await spend_link(connection, secret)
        user = await find_user(connection, name) if spent is not None and spent.user_name is not None else None
        if spent is None or (user is not None and user[0].disabled_at_s is not None):
            return words_page(request, "This link cannot be used", VOID, 404)
        if spent.purpose is LinkPurpose.FIRST_ADMIN:
            await add_user(connection, name, UserRole.ADMIN, actor=actor_of(name), password_hash=hashed)
        elif spent.purpose is LinkPurpose.PASSWORD:
            await change_password(connection, name, hashed, actor=actor_of(name))
        await start_session(connection, new)
    return context.enter(request, new)

"""Pages of accounts: Jinja2 templates with their own style sheet and script, under a strict content security policy."""

from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from cloud.accounts.identity import signed_in

STATIC = files("cloud.accounts") / "static"
STATIC_PATH = "/static/accounts/"
_TYPES = {"css": "text/css", "js": "text/javascript"}
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
# Without a referrer a browser would name no origin with a form, which OriginCheck needs.
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def theme() -> str:
    """Return the style sheet with the colours of all pages, light and dark."""
    return (STATIC / "theme.css").read_text(encoding="utf-8")


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page; `person` is the signed-in account, or None."""
    person = signed_in(request.scope)
    text = _environment().get_template(template).render(static=STATIC_PATH, person=person, **values)
    return HTMLResponse(text, status, headers=_HEADERS)


def words_page(request: Request, title: str, text: str, status: int) -> HTMLResponse:
    """Return a page that says one thing, such as a refusal."""
    return page(request, "words.html", status, title=title, text=text)


def wants_html(request: Request) -> bool:
    """Return whether a browser opens a page, and no script of one asks."""
    return "text/html" in request.headers.get("accept", "")


async def static_file(request: Request) -> Response:
    """Answer with a style sheet or script of the pages."""
    name = request.path_params["name"]
    found = _static_files().get(name)
    if found is None:
        return Response("Not found.\n", 404, media_type="text/plain")
    headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return Response(found, headers=headers, media_type=_TYPES[name.rpartition(".")[2]])


@lru_cache(maxsize=1)
def _static_files() -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in STATIC.iterdir() if item.name.rpartition(".")[2] in _TYPES}


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("cloud.accounts"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

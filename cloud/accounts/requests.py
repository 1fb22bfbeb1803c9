"""Facts of a request for sign-in: its channel, cookies, form and tokens."""

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.requests import Request, cookie_parser
from starlette.responses import Response

from shared.addresses import Address, network_of

MAX_FORM_BYTES, MAX_FIELDS = 16 * 1024, 16
FORM_S = 10.0  # in which a form has to arrive
SESSION_COOKIE, FORM_COOKIE, PROVIDER_COOKIE = "vedette-session", "vedette-form", "vedette-provider"
NOT_PRIVATE = (
    "Sign-in needs HTTPS here: use https://, or the console's own address on this machine. An administrator sets "
    "console_certificate, or trusted_proxies for a proxy with TLS."
)


def is_https(scope: Mapping[str, Any]) -> bool:
    """Return whether the browser has reached the console, or a trusted proxy in front of it, by HTTPS."""
    return scope.get("scheme") in ("https", "wss")


def is_private(scope: Mapping[str, Any]) -> bool:
    """Return whether nobody between browser and console reads along: HTTPS, or an address of the browser's machine.

    Browsers call the same addresses trustworthy. A tunnel, or the published port of a container, ends at one.
    """
    host = Headers(raw=list(scope["headers"])).get("host", "").lower()
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return is_https(scope) or Address(name.strip("[]"), 0).is_loopback


def client_address(scope: Mapping[str, Any]) -> str:
    """Return the address of the browser; of IPv6 its network."""
    client = scope.get("client")
    return network_of(client[0]) if client else ""


def read_cookie(scope: Mapping[str, Any], name: str) -> str:
    """Return the value of one of our cookies, or an empty text."""
    cookies = cookie_parser(Headers(raw=list(scope["headers"])).get("cookie", ""))
    return cookies.get(_full_name(scope, name), "")


def set_cookie(response: Response, scope: Mapping[str, Any], name: str, value: str, max_age_s: float) -> None:
    """Set one of our cookies: not for scripts, not for requests of other sites, for this host alone where possible.

    The prefix `__Host-` needs HTTPS (RFC 6265bis, section 4.1.3.2).
    """
    response.set_cookie(
        _full_name(scope, name), value, int(max_age_s), path="/", secure=is_https(scope), httponly=True, samesite="lax"
    )


def delete_cookie(response: Response, scope: Mapping[str, Any], name: str) -> None:
    """Delete one of our cookies."""
    set_cookie(response, scope, name, "", 0)


def csrf_token(secret: str) -> str:
    """Return the token that belongs to the secret of a cookie; the secret cannot be computed from it."""
    return hmac.new(secret.encode("utf-8", "surrogatepass"), b"csrf", hashlib.sha256).hexdigest()


def same_text(one: str, other: str) -> bool:
    """Return whether two texts are equal and not empty, in constant time."""
    both = (text.encode("utf-8", "surrogatepass") for text in (one, other))
    return bool(one) and hmac.compare_digest(*both)


async def read_form(request: Request) -> dict[str, str] | None:
    """Return the fields of a form; None for a body that is too large or too slow, or that is none."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        return None
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_S):
            async for part in request.stream():
                body += part
                if len(body) > MAX_FORM_BYTES:
                    return None
    except TimeoutError:
        return None
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"))
    except ValueError:
        return None


def own_path(text: str) -> str:
    """Return the path of a page of this console in `text`, "/" for anything else."""
    is_path = text.startswith("/") and text.isprintable() and not text.startswith(("//", "/\\"))
    return text if is_path and "\\" not in text and len(text) <= 2000 else "/"


def _full_name(scope: Mapping[str, Any], name: str) -> str:
    return f"__Host-{name}" if is_https(scope) else name

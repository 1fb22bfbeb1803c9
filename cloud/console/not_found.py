"""Answer to an unknown address: a page for browsers, JSON for programs.

Plain HTML without a web socket, so that a scanner which tries many addresses costs the service little.
"""

import html

from fastapi import Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from cloud.console.layout import HEAD_HTML

SHOWN_CHARACTERS = 200


async def not_found(request: Request, error: Exception) -> Response:
    """Return the answer with status 404: the reason, and links to the pages."""
    path = request.url.path
    shown = path if len(path) <= SHOWN_CHARACTERS else f"{path[:SHOWN_CHARACTERS]}..."
    reason = f"The console has no page at the address {shown}."
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(_page(reason), 404)
    detail = error.detail if isinstance(error, HTTPException) and error.detail != "Not Found" else reason
    return JSONResponse({"detail": detail}, 404)


def _page(reason: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Not found · Vedette</title>{HEAD_HTML}</head>
<body>
<header class="v-bar"><a class="v-brand" href="/">Vedette</a>
<nav class="v-nav" aria-label="Pages"><a href="/">Live</a><a href="/devices">Devices</a></nav></header>
<main class="v-main"><section class="v-empty">
<h2>Page not found</h2>
<p>{html.escape(reason)}</p>
<p>The address may have a spelling mistake, or come from another version of Vedette.</p>
<p><a class="v-button" href="/">Back to the live verdicts</a> <a class="v-button" href="/devices">Devices</a></p>
</section></main></body></html>
"""

"""Answer to an unknown address: a page for browsers, JSON for programs.

The page reads nothing and opens no stream, so that a scanner which tries many addresses costs the service little.
"""

from fastapi import Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from cloud.console.rendering import render

SHOWN_CHARACTERS = 200


async def not_found(request: Request, error: Exception) -> Response:
    """Return the answer with status 404: the reason, and links to the pages."""
    path = request.url.path
    shown = path if len(path) <= SHOWN_CHARACTERS else f"{path[:SHOWN_CHARACTERS]}..."
    reason = f"The console has no page at the address {shown}."
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(render("not_found.html", reason=reason, state=None, problem=""), 404)
    detail = error.detail if isinstance(error, HTTPException) and error.detail != "Not Found" else reason
    return JSONResponse({"detail": detail}, 404)

"""Pages: a frame with the fleet's figures around the content, complete as HTML before any script runs."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse

from cloud.accounts.identity import signed_in
from cloud.console.audience import Audience
from cloud.console.problems import problem_words
from cloud.console.rendering import render

NO_STORE = {"Cache-Control": "no-store"}
PART_HEADER = "X-Vedette-Part"  # of parts of pages; scripts put nothing else in place
ReadPage = Callable[[], Awaitable[tuple[int, dict[str, Any]]]]
"""Reads a page: its status, and the values of its template."""


async def page(request: Request, audience: Audience, template: str, read: ReadPage, **values: Any) -> HTMLResponse:
    """Return a page with the status and the values that `read` gives, or with the problem and status 503.

    Without content the template gets `problem` only, so it MUST accept that its other values are missing.
    """
    state = await audience.feed.state()
    status, content = 503, dict[str, Any]()
    problem = state.problem
    if not problem:
        try:
            status, content = await read()
        except Exception as error:
            problem = problem_words(error)
    frame = {"person": signed_in(request.scope), "state": state, "problem": problem, "has_content": not problem}
    text = render(template, **frame, **values, **content)
    return HTMLResponse(text, status, headers=NO_STORE)


def part(html: str, status: int = 200) -> HTMLResponse:
    """Return a part of a page, which its script puts in place."""
    return HTMLResponse(html, status, headers={**NO_STORE, PART_HEADER: "1"})

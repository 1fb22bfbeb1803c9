"""Page of a share link: one verdict, read-only, for people without an account.

A link shows its own sample and nothing else of the store: no pictures of other samples, no links into the console. Its
address is its secret, so it stands before sign-in.
"""

import asyncio
from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from cloud.accounts.failure_limit import FailureLimit
from cloud.accounts.pages import words_page
from cloud.accounts.requests import client_address
from cloud.console.rendering import render
from cloud.console.why.detail import detail_view
from cloud.console.why.media import Media
from cloud.console.why.reading import VerdictReader
from cloud.evidence.reading import Evidence
from cloud.store import Store
from cloud.store.share_links import ShareLink, find_share, note_opened
from shared.errors import StorageError
from shared.logs import EventLog, Throttle

PATH = "/shared/"
REQUESTS, REQUESTS_S = 120, 60.0  # of one address, pictures included
UNKNOWN = "This link is unknown, has expired, or was revoked: ask who sent it for another one."
GONE = "The verdict behind this link is no longer stored."
TOO_MANY = "Too many requests: try again in a minute."
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address is the secret
    "X-Robots-Tag": "noindex, nofollow",
}
_LOG = EventLog("shares")
_Answer = Callable[[Request, ShareLink], Awaitable[Response]]


class SharedPages:
    """Routes of share links as `router`; `reading` is bounded for people, `writing` counts openings."""

    def __init__(self, reading: Store, writing: Store, verdicts: VerdictReader, media: Media) -> None:
        self._reading, self._writing = reading, writing
        self._verdicts, self._media = verdicts, media
        self._unknown = FailureLimit()
        self._requests = FailureLimit(failures=REQUESTS, window_s=REQUESTS_S)
        self._throttle = Throttle()
        self._pictures = {
            "thumbnail.png": media.thumbnail,
            "thumbnail.svg": media.sparkline,
            "image.png": media.image,
            "cloud_map.png": media.cloud_map,
            "edge_map.png": media.edge_map,
        }
        self.router = APIRouter()
        for path, answer in {
            "": self._page,
            "/verdict.json": self._json,
            "/media/frame/{number:int}.png": self._frame,
            "/media/{name}": self._picture,
        }.items():
            handle = self._checked(answer)
            self.router.add_api_route(f"{PATH}{{secret}}{path}", handle, methods=["GET"], include_in_schema=False)

    def _checked(self, answer: _Answer) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            address = client_address(request.scope)
            if self._unknown.wait_s(address) or self._requests.wait_s(address):
                return _with_headers(words_page(request, "Not now", TOO_MANY, 429))
            self._requests.failed(address)
            async with self._reading.reading() as connection:
                share = await find_share(connection, request.path_params["secret"])
            if share is None:
                self._unknown.failed(address)
                return _with_headers(words_page(request, "This link cannot be used", UNKNOWN, 404))
            return _with_headers(await answer(request, share))

        return handle

    async def _page(self, request: Request, share: ShareLink) -> Response:
        evidence = await self._evidence(share)
        if evidence is None:
            return words_page(request, "Nothing to show", GONE, 404)
        base = f"{PATH}{request.path_params['secret']}"
        verdict = await asyncio.to_thread(detail_view, evidence, f"{base}/media", is_shared=True)
        try:
            await note_opened(self._writing, share, client_address(request.scope))
        except StorageError as error:  # reading goes on while nothing can be written
            if count := self._throttle.allow("opened"):
                _LOG.warning("share_opening_not_stored", share=share.share_id, error=error, count=count)
        text = render(
            "why/shared.html",
            verdict=verdict,
            sample_id=str(share.sample_id),
            source=f"{base}/verdict.json",
            expires_at_s=share.expires_at_s,
        )
        return HTMLResponse(text)

    async def _picture(self, request: Request, share: ShareLink) -> Response:
        draw = self._pictures.get(request.path_params["name"])
        return await draw(share.sample_id) if draw is not None else Response("Not found.\n", 404)

    async def _frame(self, request: Request, share: ShareLink) -> Response:
        return await self._media.frame(share.sample_id, request.path_params["number"])

    async def _json(self, request: Request, share: ShareLink) -> Response:
        evidence = await self._evidence(share)
        if evidence is None:
            return JSONResponse({"detail": GONE}, 404)
        verdict = await asyncio.to_thread(detail_view, evidence, is_shared=True)
        return JSONResponse({"plot": verdict.get("plot")})

    async def _evidence(self, share: ShareLink) -> Evidence | None:
        found = await self._verdicts.evidence(share.sample_id)
        return found if isinstance(found, Evidence) else None


def _with_headers(response: Response) -> Response:
    for name, value in _HEADERS.items():
        if name not in response.headers or name in ("Cache-Control", "Referrer-Policy"):
            response.headers[name] = value
    return response

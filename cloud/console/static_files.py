"""Scripts and styles of the pages, at addresses with the hash of their contents."""

import hashlib
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import Response

from cloud.accounts.pages import theme

STATIC = Path(__file__).parent / "static"
PATH = "/static/console"
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FOR_EVER = "public, max-age=31536000, immutable"


def static_address(name: str) -> str:
    """Return the address of a file; raises KeyError for an unknown one.

    The hash is that of all files, so that a script imports the others of its own version by relative addresses.
    """
    _files()[name]
    return f"{PATH}/{_digest()}/{name}"


def static_router() -> APIRouter:
    """Return the route of the files."""
    router = APIRouter(include_in_schema=False)

    @router.get(PATH + "/{digest}/{name}")
    async def static(digest: str, name: str) -> Response:
        """Answer with a file; under the hash of another version it is not kept."""
        if name not in _files():
            raise HTTPException(404, f"There is no file {name[:100]}.")
        headers = {"Cache-Control": _FOR_EVER if digest == _digest() else "no-cache"}
        return Response(_files()[name], headers=headers, media_type=_TYPES[name.rpartition(".")[2]])

    @router.get("/favicon.ico")
    async def icon() -> Response:
        """Answer with the icon at its usual address."""
        return Response(_files()["icon.svg"], headers={"Cache-Control": "no-cache"}, media_type=_TYPES["svg"])

    return router


@lru_cache(maxsize=1)
def _files() -> dict[str, bytes]:
    found = sorted(item for item in STATIC.iterdir() if item.suffix.removeprefix(".") in _TYPES)
    return {"theme.css": theme().encode()} | {item.name: item.read_bytes() for item in found}


@lru_cache(maxsize=1)
def _digest() -> str:
    digest = hashlib.sha256()
    for name, contents in _files().items():
        digest.update(f"{name}\0{len(contents)}\0".encode() + contents)
    return digest.hexdigest()[:16]

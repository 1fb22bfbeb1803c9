"""Routes for pictures of samples by sample id; final pictures are cached by the browser."""

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, NoReturn

import numpy as np
from fastapi import APIRouter, Header, HTTPException
from fastapi.responses import Response
from numpy.typing import NDArray

from cloud.console.why.traces import sparkline_svg
from cloud.evidence.contents import Contents, decode_contents, read_contents
from cloud.evidence.pictures import overlay_png, picture_png, thumbnail_png
from cloud.modalities import View
from cloud.store import Store

CACHED_THUMBNAILS = 1024
CONCURRENT_RENDERINGS = 2  # leaves cores to the analysis
_FOR_EVER = "private, max-age=31536000, immutable"
_NOT_YET = "no-store"
_SVG_POLICY = "default-src 'none'"


class Media:
    """Renderer on demand, few pictures at a time, outside the event loop; caches thumbnails."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._renderings = asyncio.Semaphore(CONCURRENT_RENDERINGS)
        self._thumbnails: OrderedDict[tuple[uuid.UUID, str], bytes] = OrderedDict()
        self.router = APIRouter(prefix="/media", tags=["media"])
        self.router.get("/{sample_id}/thumbnail.png")(self.thumbnail)
        self.router.get("/{sample_id}/thumbnail.svg")(self.sparkline)
        self.router.get("/{sample_id}/image.png")(self.image)
        self.router.get("/{sample_id}/frame/{number}.png")(self.frame)
        self.router.get("/{sample_id}/cloud_map.png")(self.cloud_map)
        self.router.get("/{sample_id}/edge_map.png")(self.edge_map)

    async def thumbnail(self, sample_id: uuid.UUID, if_none_match: Annotated[str, Header()] = "") -> Response:
        """Answer with a thumbnail of an image or of a clip's last frame, with the anomaly map."""
        return await self._small(sample_id, "thumbnail.png", if_none_match, _thumbnail)

    async def sparkline(self, sample_id: uuid.UUID, if_none_match: Annotated[str, Header()] = "") -> Response:
        """Answer with a small trace of a series, its anomalous span shaded."""
        return await self._small(sample_id, "thumbnail.svg", if_none_match, _sparkline)

    async def image(self, sample_id: uuid.UUID, if_none_match: Annotated[str, Header()] = "") -> Response:
        """Answer with an image at the size of the detail view."""
        return await self._answer(sample_id, "image.png", if_none_match, _image)

    async def frame(self, sample_id: uuid.UUID, number: int, if_none_match: Annotated[str, Header()] = "") -> Response:
        """Answer with one frame of a clip, counted from 0."""
        name = f"frame-{number}.png"
        return await self._answer(sample_id, name, if_none_match, lambda contents: _frame(contents, number))

    async def cloud_map(self, sample_id: uuid.UUID, if_none_match: Annotated[str, Header()] = "") -> Response:
        """Answer with the cloud's anomaly map in colours, transparent where normal."""
        return await self._answer(sample_id, "cloud_map.png", if_none_match, _cloud_map)

    async def edge_map(self, sample_id: uuid.UUID, if_none_match: Annotated[str, Header()] = "") -> Response:
        """Answer with the coarser map of the device in the same colours."""
        return await self._answer(sample_id, "edge_map.png", if_none_match, _edge_map)

    async def _small(
        self, sample_id: uuid.UUID, name: str, if_none_match: str, render: Callable[[Contents], bytes]
    ) -> Response:
        kept = self._thumbnails.get((sample_id, name))
        if kept is not None:
            self._thumbnails.move_to_end((sample_id, name))
            return _response(sample_id, name, kept, if_none_match, final=True)
        response = await self._answer(sample_id, name, if_none_match, render)
        if response.headers["cache-control"] == _FOR_EVER and response.status_code == 200:
            self._thumbnails[sample_id, name] = bytes(response.body)
            if len(self._thumbnails) > CACHED_THUMBNAILS:
                self._thumbnails.popitem(last=False)
        return response

    async def _answer(
        self, sample_id: uuid.UUID, name: str, if_none_match: str, render: Callable[[Contents], bytes]
    ) -> Response:
        if _tag(sample_id, name) in if_none_match:  # only final pictures have a tag, and they never change
            return _response(sample_id, name, b"", if_none_match, final=True)
        stored = await read_contents(self._store, sample_id)
        async with self._renderings:
            picture = await asyncio.to_thread(lambda: render(decode_contents(*stored)))
        payload, cloud_map = stored
        is_final = cloud_map is not None or (payload is not None and payload.judged)
        return _response(sample_id, name, picture, if_none_match, final=is_final)


def _response(sample_id: uuid.UUID, name: str, data: bytes, if_none_match: str, *, final: bool) -> Response:
    headers = {"Cache-Control": _FOR_EVER if final else _NOT_YET, "X-Content-Type-Options": "nosniff"}
    if final:
        headers["ETag"] = _tag(sample_id, name)
        if headers["ETag"] in if_none_match:
            return Response(status_code=304, headers=headers)
    if name.endswith(".svg"):
        return Response(data, media_type="image/svg+xml", headers=headers | {"Content-Security-Policy": _SVG_POLICY})
    return Response(data, media_type="image/png", headers=headers)


def _tag(sample_id: uuid.UUID, name: str) -> str:
    return f'"{sample_id.hex}-{name}"'


def _thumbnail(contents: Contents) -> bytes:
    if contents.view is View.CLIP and contents.values is not None:
        pixels = _frame_pixels(contents, len(contents.values) - 1)
    else:
        pixels = _pixels(contents)
    return thumbnail_png(pixels, contents.cloud_map if contents.cloud_map is not None else contents.edge_map)


def _sparkline(contents: Contents) -> bytes:
    values = contents.values
    if values is None or contents.view is not View.TRACES:
        _refuse(contents, "not a series")
    return sparkline_svg(values.astype(np.float32), contents.cloud_map)


def _image(contents: Contents) -> bytes:
    return picture_png(_pixels(contents))


def _cloud_map(contents: Contents) -> bytes:
    if contents.cloud_map is None:
        raise HTTPException(404, "The cloud has no anomaly map of this sample.")
    return overlay_png(contents.cloud_map)


def _edge_map(contents: Contents) -> bytes:
    if contents.edge_map is None:
        raise HTTPException(404, "The device sent no anomaly map of this sample, or it has expired.")
    return overlay_png(contents.edge_map)


def _pixels(contents: Contents) -> NDArray[np.uint8]:
    if contents.values is None or contents.view is not View.PICTURE:
        _refuse(contents, "not an image")
    return contents.values.astype(np.uint8, copy=False)


def _frame(contents: Contents, number: int) -> bytes:
    return picture_png(_frame_pixels(contents, number))


def _frame_pixels(contents: Contents, number: int) -> NDArray[np.uint8]:
    if contents.values is None or contents.view is not View.CLIP:
        _refuse(contents, "not a clip")
    if not 0 <= number < len(contents.values):
        raise HTTPException(404, f"The clip has {len(contents.values)} frames.")
    pixels: NDArray[np.uint8] = contents.values[number].astype(np.uint8, copy=False)
    return pixels


def _refuse(contents: Contents, reason: str) -> NoReturn:
    if contents.payload is None:
        raise HTTPException(410 if contents.cloud_map is not None else 404, contents.problem)
    if contents.payload.loss:
        raise HTTPException(410 if contents.payload.is_gone else 503, contents.problem)
    raise HTTPException(404, contents.problem or f"The sample is {reason}.")

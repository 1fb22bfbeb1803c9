"""Downloads of bundle archives: streamed from the disk, bounded in number and time."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi.responses import FileResponse, Response
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from cloud.rest.problems import Problem
from cloud.rest.tags import matches
from shared.logs import EventLog, Throttle

MAX_DOWNLOADS, MAX_OF_CALLER = 4, 2
RETRY_S = 10
LEAST_BYTES_PER_S = 64 * 1024  # a slower client loses the connection
GRACE_S = 60.0
_LOG = EventLog("api")
_throttle = Throttle()


class DownloadSlots:
    """Places for the downloads of one process: MAX_DOWNLOADS in all, MAX_OF_CALLER for each caller."""

    def __init__(self) -> None:
        self._taken = Counter[str]()

    @contextmanager
    def place(self, caller: str) -> Iterator[None]:
        """Hold a place within this block; raises Problem (503) if there is none."""
        if self._taken.total() >= MAX_DOWNLOADS or self._taken[caller] >= MAX_OF_CALLER:
            headers = {"Retry-After": str(RETRY_S)}
            detail = f"Too many archives are being downloaded: try again in {RETRY_S} seconds."
            raise Problem(503, "busy", detail, headers=headers)
        self._taken[caller] += 1
        try:
            yield
        finally:
            self._taken[caller] -= 1
            self._taken += Counter()  # forget callers without a download


class ArchiveDownload(FileResponse):
    """File that is sent in pieces while it holds a place; a caller that has it gets 304, and no file is read."""

    def __init__(self, path: Path, name: str, caller: str, slots: DownloadSlots) -> None:
        super().__init__(path, media_type="application/octet-stream", filename=name, stat_result=path.stat())
        self._caller, self._slots = caller, slots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, 304 or 503; the connection ends early if the client takes the file too slowly."""
        tag = self.headers["etag"]
        if matches(Headers(scope=scope).get("if-none-match", ""), tag):
            await Response(status_code=304, headers={"etag": tag})(scope, receive, send)
            return
        size = int(self.headers["content-length"])
        try:
            with self._slots.place(self._caller):
                async with asyncio.timeout(GRACE_S + size / LEAST_BYTES_PER_S):
                    await super().__call__(scope, receive, send)
        except Problem as problem:
            await problem.response()(scope, receive, send)
        except TimeoutError:
            if count := _throttle.allow("slow download"):
                _LOG.warning("archive_download_too_slow", file=os.path.basename(self.path), bytes=size, count=count)

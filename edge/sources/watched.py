"""Folder into which another program puts image files, such as a camera by FTP; each file is screened once.

Screened files are known after a power cut, too. Files that are deleted or moved are gone, and the cursor names them
until then. Files that are kept are known by their last change (ctime, set by the file system): all up to that of the
cursor have been screened. If the clock is set back, the cursor follows, and screened files of later times are known by
name.
"""

import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from edge.settings.sources import ImageFolderSettings
from edge.sources.base import Pacer
from edge.sources.health import HealthRecord, SourceHealth
from edge.sources.images import read_images
from shared.bundle import InputSpec
from shared.errors import DataError
from shared.images import PixelRange, is_image_file
from shared.logs import EventLog, Throttle
from shared.modality import Modality
from shared.samples import SampleBatch

MAX_LATEST = 10_000
_CLOCKS_DIFFER_S = 0.05  # at most, without anybody setting one

log = EventLog("folder")


class _File(NamedTuple):
    """Last change and name of a file below the folder: the order of screening."""

    changed_ns: int
    name: str


class WatchedFolder:
    """Source with one sample per new file, in the order of last changes; the origin is the path below the folder."""

    modality = Modality.IMAGE
    is_paced = True

    def __init__(
        self, settings: ImageFolderSettings, spec: InputSpec, pacer: Pacer, stop: threading.Event, cursor: str = ""
    ) -> None:
        """Check the folders. Raises DataError if the folder is absent, or files cannot be moved to `done`."""
        self.source_id = settings.id
        self._settings, self._pacer, self._stop = settings, pacer, stop
        self._pixel_range = PixelRange.of(spec.pixel_range)
        self._health, self._throttle = HealthRecord(), Throttle()
        if not settings.path.is_dir():
            raise DataError(f"{settings.path}: no such folder. Correct the path of source {settings.id!r}.")
        if settings.done is not None:
            try:
                settings.done.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(f"{settings.done}: cannot be made ({error.strerror}). Correct done.") from None
            if settings.done.stat().st_dev != settings.path.stat().st_dev:
                raise DataError(f"{settings.done}: on another file system than {settings.path}. Choose another done.")
        self._last, self._kept = _read_cursor(cursor)
        self._screened: set[_File] = set()  # and not yet known to be on disk
        self._lock = threading.Lock()
        self._looked_s: float | None = None  # when the folder was looked through last, by the steady clock
        self._looked_ns = 0  # and by the one that files are stamped with
        self._latest: deque[_File] = deque(maxlen=MAX_LATEST)  # of those screened
        self._ahead: dict[_File, float] = {}  # changed in a time that is yet to come: since when they have not

    @property
    def health(self) -> SourceHealth:
        """See `Source.health`."""
        return self._health.now

    def batches(self) -> Iterator[SampleBatch]:
        """See `Source.batches`."""
        found_s = time.monotonic()
        while self._pacer.goes_on():
            self._put_away()
            files = self._new_files()
            if not files:
                silent_s = time.monotonic() - found_s
                if self.health.is_well and 0 < self._settings.silent_after_s <= silent_s:
                    self._health.is_in("silent", f"no new file for {silent_s:.0f} s")
                self._stop.wait(self._settings.poll_s)
                continue
            found_s = time.monotonic()
            self._health.is_in("running")
            for start in range(0, len(files), self._pacer.batch_size):
                part = files[start : start + self._pacer.batch_size]
                if not self._pacer.wait(len(part)):
                    return
                yield self._batch(part)
                self._put_away()
        self._put_away()

    def _new_files(self) -> list[_File]:
        """Return files that were not screened and have not changed for `settle_s`, in order."""
        now_ns, now_s = time.time_ns(), time.monotonic()
        try:
            if self._last.changed_ns > now_ns or self._was_set_back(now_ns, now_s):
                self._follow_clock_back(now_ns, now_s)
            self._looked_s, self._looked_ns = now_s, now_ns
            with self._lock:
                known = self._kept | self._screened
            found = [file for file in self._files_below() if file > self._last and file not in known]
        except OSError as error:
            self._health.is_in("unreadable", f"{self._settings.path}: {error.strerror}")
            return []
        self._ahead = {file: self._ahead.get(file, now_s) for file in found if file.changed_ns > now_ns}
        settled_ns, settled_s = now_ns - int(self._settings.settle_s * 1e9), now_s - self._settings.settle_s
        return sorted(
            file for file in found if file.changed_ns <= settled_ns or self._ahead.get(file, now_s) <= settled_s
        )

    def _was_set_back(self, now_ns: int, now_s: float) -> bool:
        """Return whether the clock was set back since the last scan, even if it has caught up since."""
        if self._looked_s is None:
            return False
        return now_ns < self._looked_ns + int((now_s - self._looked_s - _CLOCKS_DIFFER_S) * 1e9)

    def _follow_clock_back(self, now_ns: int, now_s: float) -> None:
        """Restart from the time the clock was set back to, and remember screened files of later times by name."""
        last = self._last
        # It was set since the last look, or since the device was started: without a clock of its own that is in 1970.
        since_s = time.clock_gettime(time.CLOCK_BOOTTIME) if self._looked_s is None else now_s - self._looked_s
        if self._looked_s is None and last.changed_ns - now_ns < since_s * 1e9:
            since_s = 0.0  # set back by a little while nobody looked: files of that time cannot be told apart
        # Files that had not settled at the last scan were left for this one.
        waited_s = 0.0 if self._looked_s is None else self._settings.settle_s
        begin = min(last, _File(now_ns - int((since_s + waited_s) * 1e9), ""))
        screened = {file for file in self._files_below() if now_ns < file.changed_ns and file <= last}
        with self._lock:
            self._kept |= screened | {file for file in self._latest if file > begin}
            self._last = begin
        if self._throttle.allow("clock"):
            log.warning("clock_set_back", source=self.source_id, seconds=(last.changed_ns - now_ns) / 1e9)

    def _files_below(self) -> Iterator[_File]:
        """Yield all image files with their last change. A subfolder that cannot be read is logged and skipped."""
        root = self._settings.path
        waiting = [root]
        while waiting:
            here = waiting.pop()
            try:
                entries = list(os.scandir(here))
            except OSError as error:
                if here == root:
                    raise
                if self._throttle.allow(str(here)):
                    log.warning("folder_unreadable", source=self.source_id, folder=here, error=error.strerror)
                continue
            for entry in entries:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(here / entry.name)
                    elif is_image_file(entry.name) and entry.is_file():
                        yield _File(entry.stat().st_ctime_ns, (here / entry.name).relative_to(root).as_posix())
                except OSError:  # gone since
                    continue

    def _batch(self, files: list[_File]) -> SampleBatch:
        with self._lock:
            if self._settings.after == "keep":
                self._last = files[-1]
                self._latest.extend(files)
                self._kept = {file for file in self._kept if file > self._last}
            else:
                self._screened |= set(files)
            # Screened files that still exist; those put away meanwhile need not be known.
            cursor = json.dumps([self._last.changed_ns, self._last.name, sorted(self._kept | self._screened)])
        folder = self._settings.path
        paths = [folder / file.name for file in files]
        batch = read_images(self.source_id, folder, paths, self._pixel_range)
        return replace(batch, cursor=cursor, on_kept=lambda: self._note_kept(set(files)))

    def _note_kept(self, files: set[_File]) -> None:
        if self._settings.after != "keep":
            with self._lock:
                self._kept |= files
                self._screened -= files

    def _put_away(self) -> None:
        """Delete or move screened files whose results are on disk."""
        if self._settings.after == "keep":
            return
        with self._lock:
            files = sorted(self._kept)
        for file in files:
            try:
                self._put_one_away(file)
            except FileNotFoundError:
                pass  # by somebody else, or before a power cut
            except OSError as error:
                # It stays among the known ones, so it is not screened again.
                if self._throttle.allow("put away"):
                    log.error("file_not_put_away", source=self.source_id, file=file.name, error=error)
                continue
            with self._lock:
                self._kept.discard(file)

    def _put_one_away(self, file: _File) -> None:
        path, name = self._settings.path / file.name, file.name
        if path.stat().st_ctime_ns != file.changed_ns:
            return  # another one of that name, which is yet to be screened
        if self._settings.after == "delete" or self._settings.done is None:
            path.unlink()
            return
        target = self._settings.done / name
        target.parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while target.exists():
            number += 1
            target = (self._settings.done / name).with_stem(f"{Path(name).stem}-{number}")
        path.rename(target)


def _read_cursor(text: str) -> tuple[_File, set[_File]]:
    try:
        changed_ns, name, known = json.loads(text)
        return _File(int(changed_ns), str(name)), {_File(int(at_ns), str(one)) for at_ns, one in known}
    except (ValueError, TypeError):
        return _File(0, ""), set()

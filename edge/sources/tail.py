"""A CSV file that another program adds rows to, through rotation and truncation, from where the last run stopped.

Where it goes on is kept in one transaction with what became of the rows before (`SampleBatch.cursor`): a power cut
neither loses a row nor counts one twice. A file is known again by its inode and its first bytes, also by another name.
Windows do not reach from one file into the next.
"""

import contextlib
import glob
import hashlib
import json
import os
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from edge.settings.sources import TailSettings
from edge.sources.base import Pacer
from edge.sources.health import HealthRecord, SourceHealth
from edge.sources.tables import CsvRows
from edge.sources.windows import WindowCutter
from shared.bundle import InputSpec
from shared.errors import DataError
from shared.logs import EventLog, Throttle
from shared.modality import Modality
from shared.samples import Rejection, SampleBatch

READ_BYTES = 2**20  # at a time, and the longest line
HEAD_BYTES = 1024
_COMPRESSED = (".gz", ".xz", ".bz2", ".zst", ".zip")

log = EventLog("tail")


class Line(NamedTuple):
    """A line without its end, and where it starts in the file."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where to go on: `offset` of the next byte, in the file with that inode whose first `head_bytes` have that digest;
    `skip` rows from there on lie between two windows."""

    inode: int
    head_bytes: int
    head: str
    offset: int
    skip: int = 0

    def to_text(self) -> str:
        """As it is kept."""
        return json.dumps([self.inode, self.head_bytes, self.head, self.offset, self.skip])

    @classmethod
    def from_text(cls, text: str) -> "Cursor | None":
        """What `to_text` made; None for anything else."""
        try:
            inode, head_bytes, head, offset, skip = json.loads(text)
            return cls(int(inode), int(head_bytes), str(head), int(offset), int(skip))
        except (ValueError, TypeError):
            return None

    def fits(self, file: IO[bytes]) -> bool:
        """Whether that is the file. It may be shorter than it was: a power cut takes its writer's last rows, too."""
        return os.fstat(file.fileno()).st_ino == self.inode and _digest(file, self.head_bytes) == self.head


class TailSource:
    """Each new row a sample (tabular), or each window of consecutive rows (series)."""

    is_paced = True

    def __init__(
        self,
        settings: TailSettings,
        modality: Modality,
        spec: InputSpec,
        pacer: Pacer,
        stop: threading.Event,
        cursor: str = "",
    ) -> None:
        self.source_id, self.modality = settings.id, modality
        self._settings, self._spec, self._pacer, self._stop = settings, spec, pacer, stop
        self._cutter = WindowCutter(spec.window_length, spec.window_stride) if modality is Modality.SERIES else None
        self._health = HealthRecord()
        self._resume = Cursor.from_text(cursor)
        self._is_first = self._resume is None
        self._file: IO[bytes] | None = None
        self._rows: CsvRows | None = None
        self._offset, self._ahead = 0, b""  # of the next byte to take; bytes from there on that were read already
        self._replaced = False  # another file has the name now, and the rest of this one is read
        self._is_final = False  # that file has its header, so nobody adds to this one any more
        self._throttle = Throttle()

    @property
    def health(self) -> SourceHealth:
        """See `Source.health`."""
        return self._health.now

    def batches(self) -> Iterator[SampleBatch]:
        """See `Source.batches`. Raises DataError for a file without the bundle's columns, or that cannot be read."""
        changed_s = time.monotonic()
        try:
            while self._pacer.goes_on():
                lines, rejections = self._next_lines()
                if lines or rejections:
                    changed_s = time.monotonic()
                    self._health.is_in("running")
                    if not (yield from self._batches(lines, rejections)):
                        return
                elif not self._follow():
                    silent_s = time.monotonic() - changed_s
                    if self._file is not None and 0 < self._settings.silent_after_s <= silent_s:
                        self._health.is_in("silent", f"no new row for {silent_s:.0f} s")
                    self._stop.wait(self._settings.poll_s)
        finally:
            self._close()

    @property
    def _most_lines(self) -> int:
        """Lines of which no more samples can come than a batch has."""
        stride = 1 if self._cutter is None else max(self._spec.window_stride, 1)
        return self._pacer.batch_size * stride

    def _batches(self, lines: Sequence[Line], rejections: list[Rejection]) -> Generator[SampleBatch, None, bool]:
        """The samples of some lines, with a cursor behind them; returns whether the source goes on."""
        assert self._rows is not None  # lines come behind a header
        name = self._settings.path.name
        values, unreadable = self._rows.parse([line.text for line in lines])
        starts = np.array([line.start for line in lines], dtype=np.int64)
        rejections += [Rejection(f"{name}@{starts[position]}", reason) for position, reason in unreadable]
        skip = 0
        if self._cutter is None:
            usable = np.ones(len(lines), dtype=bool)
            usable[[position for position, _ in unreadable]] = False
            samples, origins, offset = values[usable], starts[usable], self._offset
        else:
            samples, origins, _ = self._cutter.cut(values, starts)
            offset, skip = self._cutter.position(np.int64(self._offset))
        if not self._pacer.wait(len(samples)):
            return False
        yield SampleBatch(
            self.source_id,
            self.modality,
            samples,
            np.full(len(samples), time.time()),
            [f"{name}@{start}" for start in origins.tolist()],
            rejections=rejections,
            cursor=self._cursor(int(offset), skip),
        )
        return True

    def _cursor(self, offset: int, skip: int) -> str:
        assert self._file is not None
        head_bytes = min(HEAD_BYTES, self._offset)
        inode = os.fstat(self._file.fileno()).st_ino
        return Cursor(inode, head_bytes, _digest(self._file, head_bytes), offset, skip).to_text()

    def _next_lines(self) -> tuple[list[Line], list[Rejection]]:
        """Whole lines from the offset on, at most `_most_lines`, past which the offset is then."""
        if self._file is None:
            return [], []
        data = self._ahead
        if data.count(b"\n") < self._most_lines:
            data += os.pread(self._file.fileno(), READ_BYTES - len(data), self._offset + len(data))
        size = self._offset + len(data)
        if self._is_final and data and len(data) < READ_BYTES and not data.endswith(b"\n"):
            data += b"\n"  # nobody will end the last line of a file that was put away
        lines: list[Line] = []
        start = 0
        while len(lines) < self._most_lines and (end := data.find(b"\n", start)) >= 0:
            text = data[start:end].decode("utf-8", "replace").rstrip("\r")
            if text.strip():
                lines.append(Line(text, self._offset + start))
            start = end + 1
        rejections = []
        if start == 0 and len(data) == READ_BYTES:
            rejections.append(Rejection(f"{self._settings.path.name}@{self._offset}", "is a line without an end."))
            start = len(data)
        self._offset, self._ahead = min(self._offset + start, size), data[start:]
        return lines, rejections

    def _follow(self) -> bool:
        """At the end of a file: whether there is more to read, in it or in another."""
        path = self._settings.path
        try:
            if self._file is None:
                return self._open_first()
            own, there = os.fstat(self._file.fileno()), os.stat(path)
            if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino):
                return own.st_size < self._offset and self._begin(path, is_truncated=True)
            following = next(iter(self._newer_than(own)), path)
            if not self._replaced:  # its writer may have added something before it let go
                self._replaced = True
            elif not self._is_final:
                self._is_final = _has_header(following)
            else:
                return self._begin(following)
            return self._is_final
        except FileNotFoundError:
            self._health.is_in("waiting", f"there is no {path}")
        except OSError as error:
            self._health.is_in("waiting", f"{path} cannot be read ({error.strerror})")
        return False

    def _open_first(self) -> bool:
        """The file that an earlier run stopped in, whatever its name is now, or else the one of that name."""
        path, resume = self._settings.path, self._resume
        for candidate in [path, *_rotated(path)] if resume is not None else []:
            with contextlib.suppress(OSError), candidate.open("rb") as file:
                fits = resume is not None and resume.fits(file)
                if fits and resume is not None and self._begin(candidate):
                    # A power cut may have taken the last rows from the file that are known here.
                    self._offset, self._resume = min(resume.offset, self._end_of_lines()), None
                    if self._cutter is not None:
                        self._cutter.resume(resume.skip)
                    return True
                if fits:
                    return False
        was_there = path.is_file()
        if resume is not None and was_there:
            log.warning(
                "file_lost", source=self.source_id, path=path, advice="the one there now is read from its start"
            )
        begun = self._begin(path) if was_there else False
        if begun and self._is_first and not self._settings.from_start:
            self._offset = self._end_of_lines()
        self._is_first = False  # what comes later is new, all of it
        if not was_there:
            raise FileNotFoundError
        if begun:
            self._resume = None
        return begun

    def _newer_than(self, own: os.stat_result) -> list[Path]:
        """Files of that name, rotated since, that were written after the one that is read, the oldest first."""
        found = []
        for candidate in _rotated(self._settings.path):
            with contextlib.suppress(OSError):
                status = candidate.stat()
                if status.st_ino != own.st_ino and status.st_mtime_ns > own.st_mtime_ns:
                    found.append((status.st_mtime_ns, candidate))
        return [candidate for _, candidate in sorted(found)]

    def _begin(self, path: Path, *, is_truncated: bool = False) -> bool:
        """Go on with this file behind its header; False while that is not written. One that was truncated may have
        none: then its rows are read as those before."""
        file = path.open("rb")
        header = os.pread(file.fileno(), READ_BYTES, 0).partition(b"\n")
        if not header[1]:
            file.close()
            self._health.is_in("waiting", f"{self._settings.path} has no header line")
            return False
        text, offset = header[0].decode("utf-8-sig", "replace").rstrip("\r"), len(header[0]) + 1
        try:
            self._rows = CsvRows(self._settings.path, text, self._spec.channels, missing=self._spec.missing)
        except DataError:
            if not is_truncated or self._rows is None:
                file.close()
                raise
            offset = 0
        if is_truncated and self._throttle.allow("truncated"):
            log.warning("file_truncated", source=self.source_id, path=path, advice="it is read from its start")
        self._close()
        self._file, self._replaced, self._is_final = file, False, False
        self._offset, self._ahead = offset, b""
        if self._cutter is not None:
            self._cutter.restart()
        return True

    def _end_of_lines(self) -> int:
        """Behind the last whole line there is."""
        assert self._file is not None
        size = os.fstat(self._file.fileno()).st_size
        start = max(self._offset, size - READ_BYTES)
        return max(self._offset, start + os.pread(self._file.fileno(), READ_BYTES, start).rfind(b"\n") + 1)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _rotated(path: Path) -> list[Path]:
    """Files whose names begin with that of `path`, as rotation makes them, but for compressed ones."""
    return [
        found for found in sorted(path.parent.glob(f"{glob.escape(path.name)}?*")) if found.suffix not in _COMPRESSED
    ]


def _has_header(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\n" in os.pread(file.fileno(), READ_BYTES, 0)


def _digest(file: IO[bytes], count: int) -> str:
    return hashlib.sha256(os.pread(file.fileno(), count, 0)).hexdigest()[:32]

"""Follows a text file to which another program adds lines, through rotation, truncation and restarts.

A file is recognised by its inode and its first bytes, also under another name. `FileFollower.events` yields what
happens to it; it never blocks and never parses a line.
"""

import contextlib
import glob
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

from shared.tables.dialect import HEAD_BYTES as ENCODING_BYTES
from shared.tables.dialect import TextEncoding, detect_encoding

READ_BYTES = 2**20  # per read, and the longest line
HEAD_BYTES = 1024
_COMPRESSED = (".gz", ".xz", ".bz2", ".zst", ".zip")


class Line(NamedTuple):
    """A line without its end, and where it starts in the file."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A file was opened. `header`: its first line; `skip`: rows to skip after a restart, from its cursor."""

    path: Path
    header: str
    encoding: str
    skip: int = 0
    is_truncated: bool = False


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines. `at_start`: the first follows the header; `too_long`: start of each line without an end."""

    lines: tuple[Line, ...]
    at_start: bool
    too_long: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Rotated:
    """The file was read to its end, and another one follows. `Opened` comes next."""

    path: Path


@dataclass(frozen=True, slots=True)
class Truncated:
    """The file became shorter. `Opened` comes next."""

    path: Path


@dataclass(frozen=True, slots=True)
class Lost:
    """The file of the cursor is gone; the present one is read from its start."""

    path: Path


@dataclass(frozen=True, slots=True)
class Idle:
    """There is nothing to read now. `reason`: why there is no file; "" at the end of a file."""

    reason: str = ""


Event: TypeAlias = Opened | Lines | Rotated | Truncated | Lost | Idle


@dataclass(frozen=True, slots=True)
class Cursor:
    """Place to resume from.

    `offset`: next byte in the file with this inode whose first `head_bytes` have the digest `head`; `skip`: rows from
    there that lie between two windows.
    """

    inode: int
    head_bytes: int
    head: str
    offset: int
    skip: int = 0

    def to_text(self) -> str:
        """Return the cursor as it is stored."""
        return json.dumps([self.inode, self.head_bytes, self.head, self.offset, self.skip])

    @classmethod
    def from_text(cls, text: str) -> "Cursor | None":
        """Return the cursor of a text made by `to_text`; None for any other text."""
        try:
            inode, head_bytes, head, offset, skip = json.loads(text)
            return cls(int(inode), int(head_bytes), str(head), int(offset), int(skip))
        except (ValueError, TypeError):
            return None

    def fits(self, file: IO[bytes]) -> bool:
        """Return whether this is the file. It may be shorter than before: a power cut can take its last rows."""
        return os.fstat(file.fileno()).st_ino == self.inode and _digest(file, self.head_bytes) == self.head


class FileFollower:
    """Reads the lines of a growing file. Close it when done."""

    def __init__(
        self, path: Path, *, max_lines: int, cursor: str = "", from_start: bool = True, encoding: str = "auto"
    ) -> None:
        """Follow `path`.

        Args:
            path: the file; it may come later.
            max_lines: most lines per event.
            cursor: place to resume from; "" at the first run.
            from_start: whether lines already in the file at the first run are read.
            encoding: of `TableSettings`.
        """
        self._path, self._max_lines, self._from_start, self._wanted = path, max_lines, from_start, encoding
        self._resume = Cursor.from_text(cursor)
        self._is_first = self._resume is None
        self._file: IO[bytes] | None = None
        self._encoding = TextEncoding("utf-8")
        self._offset, self._ahead = 0, b""  # next byte to take; bytes from there on that were read already
        self._data_start = 0  # offset behind the header
        self._is_replaced = False  # another file has the name now, and the rest of this one is read
        self._is_final = False  # that file has its header, so nobody adds to this one any more

    @property
    def is_open(self) -> bool:
        """Whether a file is open."""
        return self._file is not None

    @property
    def offset(self) -> int:
        """Byte after the last line that was given."""
        return self._offset

    def events(self) -> Iterator[Event]:
        """Yield events without end. `Idle` means that the caller should wait before the next one."""
        while True:
            if (lines := self._next_lines()) is not None:
                yield lines
                continue
            try:
                yield from self._follow()
            except FileNotFoundError:
                yield Idle(f"there is no {self._path}")
            except OSError as error:
                yield Idle(f"{self._path} cannot be read ({error.strerror})")

    def rewind(self) -> None:
        """Take the first line of the file for a row: a truncated file may have no header."""
        self._offset, self._ahead, self._data_start = self._encoding.bom_bytes, b"", -1

    def cursor(self, offset: int, skip: int) -> str:
        """Return the cursor of a place in the open file."""
        assert self._file is not None
        head_bytes = min(HEAD_BYTES, self._offset)
        inode = os.fstat(self._file.fileno()).st_ino
        return Cursor(inode, head_bytes, _digest(self._file, head_bytes), offset, skip).to_text()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _next_lines(self) -> Lines | None:
        """Return whole lines from the offset on, and move it behind them; None if there are none."""
        if self._file is None:
            return None
        begin, data, newline = self._offset, self._ahead, self._encoding.newline
        if data.count(newline) < self._max_lines:
            data += os.pread(self._file.fileno(), READ_BYTES - len(data), begin + len(data))
        size = begin + len(data)
        if self._is_final and data and len(data) < READ_BYTES and not data.endswith(newline):
            data += newline  # nobody will end the last line of a file that was put away
        lines: list[Line] = []
        start = 0
        while len(lines) < self._max_lines and (end := self._encoding.find_newline(data, start)) >= 0:
            text = self._encoding.decode(data[start:end])
            if text.strip():
                lines.append(Line(text, begin + start))
            start = end + len(newline)
        too_long: tuple[int, ...] = ()
        if start == 0 and len(data) == READ_BYTES:
            too_long, start = (begin,), len(data)
        self._offset, self._ahead = min(begin + start, size), data[start:]
        return Lines(tuple(lines), begin == self._data_start, too_long) if lines or too_long else None

    def _follow(self) -> Iterator[Event]:
        """At the end of a file: look for more, in it or in another."""
        if self._file is None:
            yield from self._open_first()
            return
        own, there = os.fstat(self._file.fileno()), os.stat(self._path)
        if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino):
            if own.st_size < self._offset and (opened := self._begin(self._path, is_truncated=True)) is not None:
                yield Truncated(self._path)
                yield opened
            else:
                yield Idle()
            return
        following = next(iter(self._newer_than(own)), self._path)
        if not self._is_replaced:  # its writer may have added something before it let go
            self._is_replaced = True
            yield Idle()
        elif not self._is_final:
            self._is_final = self._has_header(following)
            if not self._is_final:
                yield Idle()
        elif (opened := self._begin(following)) is not None:
            yield Rotated(following)
            yield opened
        else:
            yield Idle(f"{self._path} has no header line")

    def _open_first(self) -> Iterator[Event]:
        """Open the file that an earlier run stopped in, under any name, or else the one of that name."""
        path, resume = self._path, self._resume
        if resume is not None:
            for candidate in [path, *_rotated(path)]:
                with contextlib.suppress(OSError), candidate.open("rb") as file:
                    if not resume.fits(file):
                        continue
                    opened = self._begin(candidate, skip=resume.skip)
                    if opened is None:
                        yield Idle(f"{path} has no header line")
                        return
                    # A power cut may have taken the last rows that the cursor counts.
                    self._offset, self._resume = min(resume.offset, self._end_of_lines()), None
                    yield opened
                    return
        if not path.is_file():
            self._is_first = False  # all lines of a file that comes later are new
            raise FileNotFoundError
        if resume is not None:
            yield Lost(path)
        opened = self._begin(path)
        if opened is not None and self._is_first and not self._from_start:
            self._offset = self._end_of_lines()
        self._is_first = False
        if opened is None:
            yield Idle(f"{path} has no header line")
            return
        self._resume = None
        yield opened

    def _begin(self, path: Path, *, skip: int = 0, is_truncated: bool = False) -> Opened | None:
        """Go on with this file behind its first line; None if that is not complete."""
        file = path.open("rb")
        try:
            head = os.pread(file.fileno(), READ_BYTES, 0)
        except OSError:
            file.close()
            raise
        encoding = detect_encoding(head[:ENCODING_BYTES], self._wanted)
        end = encoding.find_newline(head)
        if end < 0:
            file.close()
            return None
        self.close()
        self._file, self._encoding, self._is_replaced, self._is_final = file, encoding, False, False
        self._offset = self._data_start = end + len(encoding.newline)
        self._ahead = b""
        header = encoding.decode(head[encoding.bom_bytes : end])
        return Opened(path, header, encoding.name, skip, is_truncated)

    def _newer_than(self, own: os.stat_result) -> list[Path]:
        """Return files of that name, rotated since, that were written after the one being read, the oldest first."""
        found = []
        for candidate in _rotated(self._path):
            with contextlib.suppress(OSError):
                status = candidate.stat()
                if status.st_ino != own.st_ino and status.st_mtime_ns > own.st_mtime_ns:
                    found.append((status.st_mtime_ns, candidate))
        return [candidate for _, candidate in sorted(found)]

    def _end_of_lines(self) -> int:
        """Return the offset behind the last whole line."""
        assert self._file is not None
        size, width = os.fstat(self._file.fileno()).st_size, len(self._encoding.newline)
        start = max(self._offset, size - READ_BYTES)
        start -= (start - self._offset) % width
        data = os.pread(self._file.fileno(), READ_BYTES, start)
        *_, rest = self._encoding.split_lines(data)
        return max(self._offset, start + len(data) - len(rest)) if len(rest) < len(data) else self._offset

    def _has_header(self, path: Path) -> bool:
        with path.open("rb") as file:
            head = os.pread(file.fileno(), READ_BYTES, 0)
        return detect_encoding(head[:ENCODING_BYTES], self._wanted).find_newline(head) >= 0


def _rotated(path: Path) -> list[Path]:
    """Return files whose names begin with that of `path`, as rotation makes them, but for compressed ones."""
    return [
        found for found in sorted(path.parent.glob(f"{glob.escape(path.name)}?*")) if found.suffix not in _COMPRESSED
    ]


def _digest(file: IO[bytes], count: int) -> str:
    return hashlib.sha256(os.pread(file.fileno(), count, 0)).hexdigest()[:32]

"""Objects below a URL: files of a folder, or objects of an S3 bucket through fsspec.

Credentials and the endpoint of S3 come from the environment or the files of the AWS command line, never from the URL.
"""

import abc
import contextlib
import errno
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from shared.errors import StorageError
from shared.files import synchronise_folder, write_durably

S3_CONNECT_S, S3_READ_S, S3_ATTEMPTS = 5.0, 20.0, 2
MAX_PARTS = 1024  # of one call of writev
CREATE_ATTEMPTS = 5  # to make a file in a folder that others remove when it is empty
_FILE = "file://"


class Range(NamedTuple):
    """Bytes of an object, from `start` on."""

    name: str
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes that are there and cannot be read now, such as those on a bad sector; `reason` names no path."""

    reason: str


Read: TypeAlias = bytes | Unreadable | None
"""Bytes of a range: fewer where the object ends, None if there is no such object."""


class Objects(abc.ABC):
    """Objects by name, `FOLDER/NAME` or `NAME`; its calls block.

    Each call raises StorageError if the objects cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @abc.abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write an object in one piece, in place of an earlier one; it MUST be durable afterwards."""

    @abc.abstractmethod
    def write_new(self, name: str, parts: Sequence[bytes]) -> None:
        """Write an object of a new name from its parts; it MUST be durable afterwards."""

    @abc.abstractmethod
    def read(self, name: str) -> bytes | None:
        """Return an object; None if there is none of that name."""

    @abc.abstractmethod
    def read_ranges(self, ranges: Sequence[Range]) -> Sequence[Read]:
        """Return the bytes of each range."""

    @abc.abstractmethod
    def folders(self) -> list[str]:
        """Return the names of the folders, in order."""

    @abc.abstractmethod
    def sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes of the objects in a folder in bytes, by `FOLDER/NAME`; empty if there is none."""

    @abc.abstractmethod
    def remove(self, names: Sequence[str]) -> None:
        """Remove objects, which may be missing."""

    @abc.abstractmethod
    def exist(self) -> bool:
        """Return whether the folder or bucket is there."""

    @abc.abstractmethod
    def make(self) -> None:
        """Make the folder if it is missing. A bucket is never made."""


def objects_at(url: str) -> Objects:
    """Return the objects below a URL; it connects when they are used."""
    url = url.rstrip("/")
    return FileObjects(url) if url.startswith(_FILE) else BucketObjects(url)


class FileObjects(Objects):
    """Files of a folder. The folder itself is made by `make` or by `write`: it may be a disk that is not mounted."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._root = Path(url.removeprefix(_FILE))
        self._made: Path | None = None  # the last folder whose entry this process has made durable

    def write(self, name: str, data: bytes) -> None:
        """Write a file in one piece, in place of an earlier one."""
        with self._errors("written"):
            write_durably(self._root / name, data)

    def write_new(self, name: str, parts: Sequence[bytes]) -> None:
        """Write a new file, and synchronise it and its folder."""
        path = self._root / name
        with self._errors("written"):
            descriptor = self._create(path)
            try:
                try:
                    _write_all(descriptor, parts)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            except OSError:
                path.unlink(missing_ok=True)
                raise
            synchronise_folder(path.parent)

    def _create(self, path: Path) -> int:
        """Return the descriptor of a new file; its folder may be missing, or be removed at the same time."""
        for attempts_left in reversed(range(CREATE_ATTEMPTS)):
            if self._made != path.parent:  # another process may have made it, and not be done with it
                path.parent.mkdir(exist_ok=True)
                synchronise_folder(self._root)
                self._made = path.parent
            try:
                return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
            except FileNotFoundError:
                self._made = None
                if not attempts_left:
                    raise
        raise AssertionError("unreachable")

    def read(self, name: str) -> bytes | None:
        """Return the contents of a file; None if there is none of that name."""
        with self._errors("read"):
            try:
                return (self._root / name).read_bytes()
            except FileNotFoundError:
                return None

    def read_ranges(self, ranges: Sequence[Range]) -> Sequence[Read]:
        """Read each range by itself, so that a bad sector hides those on it alone."""
        found = list[Read]()
        with self._errors("read"):
            for name, of_file in groupby(ranges, lambda wanted: wanted.name):
                wanted = list(of_file)
                try:
                    descriptor = os.open(self._root / name, os.O_RDONLY)
                except FileNotFoundError:
                    found += [None] * len(wanted)
                    continue
                try:
                    found += [_read(descriptor, each) for each in wanted]
                finally:
                    os.close(descriptor)
        return found

    def folders(self) -> list[str]:
        """Return the names of the folders, in order."""
        with self._errors("listed"):
            return sorted(entry.name for entry in os.scandir(self._root) if entry.is_dir())

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes of the files in a folder in bytes, by `FOLDER/NAME`."""
        found = dict[str, int]()
        with self._errors("listed"), contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._root / folder):
                if entry.name.startswith("."):  # not written completely
                    continue
                with contextlib.suppress(FileNotFoundError):
                    found[f"{folder}/{entry.name}"] = entry.stat().st_size
        return found

    def remove(self, names: Sequence[str]) -> None:
        """Remove files, and the folders that are empty then; durably, so that no file comes back after a power cut."""
        with self._errors("removed"):
            for name in names:
                (self._root / name).unlink(missing_ok=True)
            for folder in {(self._root / name).parent for name in names}:
                _remove_empty_or_synchronise(folder, self._root)

    def exist(self) -> bool:
        """Return whether the folder is there."""
        return self._root.is_dir()

    def make(self) -> None:
        """Make the folder with its parents."""
        with self._errors("made"):
            self._root.mkdir(parents=True, exist_ok=True, mode=0o750)
            for folder in (self._root.parent, self._root.parent.parent):
                synchronise_folder(folder)

    @contextlib.contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except (OSError, StorageError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StorageError(
                f"{self.url}: cannot be {action} ({reason}). Check the URL, the disk's free space and the owner."
            ) from error


class BucketObjects(Objects):
    """Objects of an S3 bucket."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._system: Any = None
        self._root = ""

    def write(self, name: str, data: bytes) -> None:
        """Put an object."""
        system = self._open()
        with self._errors("written"):
            system.pipe_file(f"{self._root}/{name}", data)

    def write_new(self, name: str, parts: Sequence[bytes]) -> None:
        """Put an object."""
        self.write(name, b"".join(parts))

    def read(self, name: str) -> bytes | None:
        """Return an object; None if there is none of that name."""
        system = self._open()
        with self._errors("read"):
            try:
                return bytes(system.cat_file(f"{self._root}/{name}"))
            except FileNotFoundError:
                return None

    def read_ranges(self, ranges: Sequence[Range]) -> Sequence[Read]:
        """Read the ranges side by side."""
        if not ranges:
            return []
        system = self._open()
        paths = [f"{self._root}/{wanted.name}" for wanted in ranges]
        ends = [wanted.start + wanted.size for wanted in ranges]
        with self._errors("read"):
            found = system.cat_ranges(paths, [wanted.start for wanted in ranges], ends, on_error="return")
            return [_bytes(each) for each in found]

    def folders(self) -> list[str]:
        """Return the names of the folders, in order."""
        return [name for name, entry in self._entries("") if entry["type"] == "directory"]

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes of the objects in a folder in bytes, by `FOLDER/NAME`."""
        return {f"{folder}/{name}": int(entry["size"]) for name, entry in self._entries(f"/{folder}")}

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects one by one: s3fs ignores the errors of single objects where it removes several at once."""
        system = self._open()
        with self._errors("removed"):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    system.rm_file(f"{self._root}/{name}")

    def exist(self) -> bool:
        """Return whether the bucket is there."""
        system = self._open()
        with self._errors("read"):
            try:
                system.ls(self._root.partition("/")[0], detail=False)
            except FileNotFoundError:
                return False
        return True

    def make(self) -> None:
        """Do nothing: a prefix needs no folder."""

    def _entries(self, below: str) -> list[tuple[str, dict[str, Any]]]:
        system = self._open()
        with self._errors("listed"):
            try:
                entries = system.ls(self._root + below, detail=True)
            except FileNotFoundError:
                return []
        return sorted((str(entry["name"]).rpartition("/")[2], entry) for entry in entries)

    def _open(self) -> Any:
        if self._system is None:
            from fsspec.core import url_to_fs

            limits = {
                "connect_timeout": S3_CONNECT_S,
                "read_timeout": S3_READ_S,
                "retries": {"max_attempts": S3_ATTEMPTS},
            }
            options = {"config_kwargs": limits, "use_listings_cache": False, "skip_instance_cache": True}
            try:
                self._system, self._root = url_to_fs(self.url, **options)
            except ImportError as error:
                raise StorageError(f"{self.url}: needs {error.name or 's3fs'}: pip install 'vedette[s3]'.") from None
        return self._system

    @contextlib.contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each file system has errors of its own
            reason = str(error) or type(error).__name__
            raise StorageError(
                f"{self.url}: cannot be {action} ({reason}). Check the URL, AWS_ENDPOINT_URL and the credentials of S3."
            ) from error


def _remove_empty_or_synchronise(folder: Path, root: Path) -> None:
    """Remove a folder if it is empty, and make durable that entries of it are gone."""
    changed = folder
    if folder != root:
        try:
            folder.rmdir()
            changed = root
        except FileNotFoundError:
            changed = root
        except OSError:  # it holds other files
            pass
    with contextlib.suppress(FileNotFoundError):  # removed by another process, or a disk that is not mounted
        synchronise_folder(changed)


def _write_all(descriptor: int, parts: Sequence[bytes]) -> None:
    """Write parts in as few calls as possible."""
    left = deque([memoryview(part) for part in parts])
    while left:
        written = os.writev(descriptor, list(islice(left, MAX_PARTS)))
        while left and written >= len(left[0]):
            written -= len(left.popleft())
        if written:
            left[0] = left[0][written:]


def _read(descriptor: int, wanted: Range) -> bytes | Unreadable:
    try:
        return os.pread(descriptor, wanted.size, wanted.start)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return Unreadable("the disk reports an input/output error")


def _bytes(found: object) -> bytes | None:
    """Return the bytes of a range; raises the error of a request that failed."""
    if isinstance(found, FileNotFoundError):
        return None
    if isinstance(found, Exception):
        if "InvalidRange" in str(found) or "not satisfiable" in str(found):
            return b""
        raise found
    assert isinstance(found, bytes)
    return found

"""Words for a disk without space, the same in `vedette edge check`, the log and the status."""

import errno
import shutil
import sqlite3
from pathlib import Path

MIN_FREE_BYTES = 64 * 2**20
NO_SPACE_BYTES = 2**20  # an I/O error with less free space is most likely one of space

_MAYBE_OF_SPACE = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


def existing_folder(path: Path) -> Path:
    """Return the path if it is a folder, or else the nearest folder above it."""
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """Return the free space of the disk that holds the path, which may not exist yet; raises OSError."""
    return shutil.disk_usage(existing_folder(path)).free


def free_text(path: Path) -> str:
    """Return the free space in words; raises OSError."""
    return f"{free_bytes(path) / 2**20:,.0f} MiB free at {existing_folder(path)}"


def too_full_text(path: Path) -> str:
    """Return the free space and the space that an agent needs in words; raises OSError."""
    return f"{free_text(path)}; {MIN_FREE_BYTES / 2**20:.0f} are needed"


def disk_error_text(error: Exception, path: Path) -> str:
    """Return the text of an error at a path, with the free space if the error comes from a full disk."""
    try:
        is_full = free_bytes(path) < _least_free_bytes(error)
        return f"{error}: {too_full_text(path)}" if is_full else str(error)
    except OSError:
        return str(error)


def is_full(error: Exception) -> bool:
    """Return whether an error says that a disk, or the share of it that a user may fill, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _least_free_bytes(error: Exception) -> int:
    """Return the free space below which an error comes from a full disk; 0: never."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return MIN_FREE_BYTES
        return NO_SPACE_BYTES if code in _MAYBE_OF_SPACE else 0
    if isinstance(error, OSError):
        return {errno.ENOSPC: MIN_FREE_BYTES, errno.EIO: NO_SPACE_BYTES}.get(error.errno or 0, 0)
    return 0

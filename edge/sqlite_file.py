"""SQLite files with a write-ahead log, checked at opening; a damaged file is set aside."""

import contextlib
import glob
import sqlite3
import time
from pathlib import Path

from edge.disk import disk_error_text
from shared.errors import StorageError
from shared.logs import EventLog

MAX_SET_ASIDE = 2  # damaged files kept of one database, so that they do not fill a failing disk
_SIDE_FILES = ("", "-wal", "-shm")

log = EventLog("storage")


def open_checked(path: Path, schema: str, *, synchronous: str) -> tuple[sqlite3.Connection, Path | None]:
    """Open or create the database at `path`; returns the connection and the new path of a damaged file, or None.

    `synchronous`: with FULL a commit survives a power cut, with NORMAL a crash of the process.
    Raises StorageError if the file cannot be opened or made at all.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path.parent}: cannot be made ({error.strerror}). Correct state_dir.") from None
    try:
        return _open(path, schema, synchronous), None
    except sqlite3.OperationalError as error:
        if not _is_damage(error):
            raise StorageError(
                f"{path}: cannot be opened ({disk_error_text(error, path)}). Free some space, or check who owns it."
            ) from None
        damage: sqlite3.DatabaseError = error
    except sqlite3.DatabaseError as error:
        damage = error
    aside = set_aside(path, str(damage))
    try:
        return _open(path, schema, synchronous), aside
    except sqlite3.Error as error:
        raise StorageError(
            f"{path}: cannot be created again ({disk_error_text(error, path)}). Free some space, or check who owns it."
        ) from None


def connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """Return a connection for one thread at a time, without automatic transactions."""
    connection = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA journal_size_limit = 4194304")
    connection.execute("PRAGMA cache_size = -512")  # KiB instead of 2000: the system caches the file anyway
    return connection


def set_aside(path: Path, reason: str) -> Path:
    """Rename a damaged database and its side files, and log it; returns the new path."""
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}")
    while aside.exists():
        aside = aside.with_name(f"{aside.name}x")
    try:
        for suffix in _SIDE_FILES:
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
    except OSError as error:
        raise StorageError(f"{path}: damaged ({reason}), and cannot be set aside ({error}). Move it away.") from None
    with contextlib.suppress(OSError):
        _remove_older(path, aside)
    log.error("database_damaged", path=path, reason=reason, set_aside_as=aside, advice="a new one was started")
    return aside


def _remove_older(path: Path, newest: Path) -> None:
    """Remove files set aside earlier, except `newest` and the one before it."""
    others = [
        found
        for found in path.parent.glob(f"{glob.escape(path.name)}.damaged-*")
        if found != newest and not found.name.endswith(_SIDE_FILES[1:])
    ]
    for old in sorted(others, key=lambda found: found.stat().st_ctime_ns)[: len(others) + 1 - MAX_SET_ASIDE]:
        for suffix in _SIDE_FILES:
            old.with_name(old.name + suffix).unlink(missing_ok=True)


def is_damaged(error: Exception) -> bool:
    """Return whether an error means a damaged file, not a full disk or a busy file."""
    return isinstance(error, sqlite3.DatabaseError) and _is_damage(error)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _open(path: Path, schema: str, synchronous: str) -> sqlite3.Connection:
    connection = connect(path, synchronous)
    try:
        # Not quick_check: a sample that is missing from an index would never be found and sent.
        problem = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
        connection.executescript(schema)
    except BaseException:
        connection.close()
        raise
    return connection

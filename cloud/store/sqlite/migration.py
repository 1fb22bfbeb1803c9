"""Migration of a SQLite store, and of its file to one that can shrink."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from alembic.util import CommandError
from sqlalchemy import create_engine, event
from sqlalchemy.exc import DBAPIError

from cloud.store.migrate import upgrade
from cloud.store.sqlite.space import INCREMENTAL
from cloud.store.sqlite.store import BUSY_TIMEOUT_MS, DATABASE_FILE
from shared.errors import StorageError
from shared.logs import EventLog

_LOG = EventLog("store")


def migrate_file(data_dir: Path) -> tuple[str | None, str]:
    """Apply missing steps to the file of a data directory; return the revision before and after.

    A file of an older version that cannot shrink is rewritten, if the disk has room and no other process uses it.

    Raises StorageError if the file is not a store, was made by a newer version, or
    cannot be written.
    """
    path = data_dir / DATABASE_FILE
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})
    if not path.exists() or not path.stat().st_size:
        event.listen(engine, "connect", _shrinkable)
    try:
        with engine.begin() as connection:
            revisions = upgrade(connection)
    except CommandError as error:
        raise StorageError(f"{path}: made by another version of Vedette ({error}). Update Vedette.") from None
    except (DBAPIError, sqlite3.Error) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise StorageError(
            f"{path}: cannot be brought up to date ({reason}). Check the disk's free space and the file's owner."
        ) from None
    finally:
        engine.dispose()
    _convert(path)
    return revisions


def _shrinkable(connection: sqlite3.Connection, _: object) -> None:
    """Make the new file one that can return free pages; this has no effect after the first table."""
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")


def _convert(path: Path) -> None:
    """Rewrite a file that cannot return free pages; where that fails, log why and change nothing."""
    try:
        with closing(sqlite3.connect(path, timeout=0.0, isolation_level=None)) as connection:
            if connection.execute("PRAGMA auto_vacuum").fetchone()[0] == INCREMENTAL:
                return
            before = path.stat().st_size
            if lack := _lack_of_room(path, before):
                _LOG.warning("store_not_compacted", path=path, reason=lack, advice="free some space, then restart")
                return
            # Leaving WAL mode fails if another process has the file open, and saves a log as large as the file.
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("PRAGMA synchronous = FULL")
            _LOG.info("store_compacting", path=path, file_bytes=before)
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("VACUUM")
        _LOG.info("store_compacted", path=path, bytes_before=before, bytes_after=path.stat().st_size)
    except (sqlite3.Error, OSError) as error:
        _LOG.warning("store_not_compacted", path=path, reason=error, advice="restart the service to try again")


def _lack_of_room(path: Path, file_bytes: int) -> str:
    """Return which disk has too little room for VACUUM: its journal beside the file, its copy in a temporary folder."""
    temporary = _temporary_folder()
    shared_disk = os.stat(temporary).st_dev == os.stat(path.parent).st_dev
    needed = {path.parent: 2 * file_bytes} if shared_disk else {path.parent: 2 * file_bytes, temporary: file_bytes}
    for folder, room in needed.items():
        free = shutil.disk_usage(folder).free
        if free < room:
            return f"{folder} has {free} bytes free, rewriting needs {room}"
    return ""


def _temporary_folder() -> Path:
    """Return the folder of SQLite's temporary files (https://www.sqlite.org/tempfiles.html, section 5)."""
    named = (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp")
    for folder in named:
        if folder and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
            return Path(folder)
    return Path()

"""Words for a full disk. /proc is a real file system without free space."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from edge.disk import MIN_FREE_BYTES, disk_error_text, free_bytes, too_full_text

NO_SPACE = Path("/proc/state/spool.db")


def sqlite_error(path: Path, pragma: str, statement: str) -> sqlite3.Error:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x BLOB)")
    connection.commit()
    connection.execute(pragma)
    with pytest.raises(sqlite3.Error) as caught:
        connection.execute(statement)
    connection.close()
    return caught.value


def test_errors_of_a_full_disk_name_the_free_space_and_others_do_not(tmp_path: Path) -> None:
    words = "0 MiB free at /proc; 64 are needed"
    assert too_full_text(NO_SPACE) == words
    full = sqlite_error(tmp_path / "a.db", "PRAGMA max_page_count = 2", "INSERT INTO t VALUES (zeroblob(100000))")
    assert disk_error_text(full, NO_SPACE) == f"database or disk is full: {words}"
    wrong = sqlite_error(tmp_path / "b.db", "PRAGMA query_only = 1", "INSERT INTO t VALUES (1)")
    assert disk_error_text(wrong, NO_SPACE) == str(wrong)
    with pytest.raises(OSError, match="No space left") as caught, Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"x")
    assert caught.value.errno == errno.ENOSPC
    assert disk_error_text(caught.value, NO_SPACE) == f"{caught.value}: {words}"
    assert disk_error_text(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), NO_SPACE).endswith("denied")


def test_an_i_o_error_on_a_disk_with_space_is_not_a_full_one(tmp_path: Path) -> None:
    (tmp_path / "c.db").mkdir()
    with pytest.raises(sqlite3.OperationalError, match="unable to open") as caught:
        sqlite3.connect(tmp_path / "c.db").execute("PRAGMA journal_mode = WAL")
    assert disk_error_text(caught.value, NO_SPACE).endswith("64 are needed")
    assert free_bytes(tmp_path / "c.db") > MIN_FREE_BYTES
    assert disk_error_text(caught.value, tmp_path) == str(caught.value)

"""A damaged spool file: readable samples are sent, the rest counts as dropped, no sample counts twice."""

import os
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edge.counters import Counters
from edge.settings import SpoolSettings
from edge.spool import Spool
from edge.spool_store import NewSample, Settled
from edge.sqlite_file import MAX_SET_ASIDE
from shared.errors import StorageError
from tests.edge.forked import Forked
from tests.edge.test_spool import put, sample, until

ROUTED, DELIVERED = 300, 60
PAGE = 4096


def spool_at(folder: Path) -> tuple[Spool, Counters]:
    counters = Counters(folder / "counters.json")
    return Spool(folder / "spool.db", SpoolSettings(), counters), counters


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, set[bytes], set[bytes]]:
    """The folder of a spool as a kill leaves it, with the ids of all samples and of those that were delivered."""
    monkeypatch.setattr("edge.spool_store._CHUNK_BYTES", 20_000)  # many batches of recovered samples
    (tmp_path / "alive").mkdir()
    spool, counters = spool_at(tmp_path / "alive")
    samples = [sample((number % 97 + 1) / 100, 700) for number in range(ROUTED)]
    for start in range(0, ROUTED, 50):
        put(spool, samples[start : start + 50], samples_screened=50, samples_forwarded=50)
    with closing(sqlite3.connect(tmp_path / "alive" / "spool.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    delivered = spool.take(DELIVERED, 1 << 20)
    for start in range(0, DELIVERED, 10):
        spool.settle([Settled(item) for item in delivered[start : start + 10]], {})
        until(lambda start=start: counters.snapshot()["samples_acknowledged"] == start + 10)
    counters.save()
    shutil.copytree(tmp_path / "alive", tmp_path / "killed")
    spool.close()
    return tmp_path / "killed", {item.sample_id for item in samples}, {item.sample_id for item in delivered}


def to_nothing(folder: Path) -> None:
    os.truncate(folder / "spool.db", 0)
    (folder / "spool.db-wal").unlink()


def to_half(folder: Path) -> None:
    os.truncate(folder / "spool.db", (folder / "spool.db").stat().st_size // 2)


def random_bytes_in_the_middle(folder: Path) -> None:
    data = bytearray((folder / "spool.db").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3 * PAGE] = random.Random(1).randbytes(3 * PAGE)
    (folder / "spool.db").write_bytes(data)


def a_log_with_a_hole(folder: Path) -> None:
    log = folder / "spool.db-wal"
    data = bytearray(log.read_bytes())
    middle = len(data) // 2
    data[middle : middle + PAGE] = random.Random(1).randbytes(PAGE)
    log.write_bytes(data)


def a_log_of_zeros(folder: Path) -> None:
    log = folder / "spool.db-wal"
    log.write_bytes(bytes(log.stat().st_size))


def an_index_of_other_rows(folder: Path) -> None:
    """It has as many entries as there are rows; a third of them are of none."""
    where = "name = 'by_priority'"
    with closing(sqlite3.connect(folder / "spool.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        entry = connection.execute(f"SELECT * FROM sqlite_schema WHERE {where}").fetchone()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(f"DELETE FROM sqlite_schema WHERE {where}")
    with closing(sqlite3.connect(folder / "spool.db", isolation_level=None)) as connection:
        connection.execute("UPDATE samples SET seq = seq + 1000 WHERE seq % 3 = 0")  # the index does not hear of it
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", entry)


def the_file_is_gone(folder: Path) -> None:
    for path in folder.glob("spool.db*"):
        path.unlink()


DAMAGES: list[Callable[[Path], None]] = [
    to_nothing,
    to_half,
    random_bytes_in_the_middle,
    a_log_with_a_hole,
    a_log_of_zeros,
    an_index_of_other_rows,
    the_file_is_gone,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_after_damage_each_sample_is_delivered_or_counted_as_dropped_once(
    killed: tuple[Path, set[bytes], set[bytes]], damage: Callable[[Path], None]
) -> None:
    folder, routed, delivered = killed
    damage(folder)
    spool, counters = spool_at(folder)
    waiting = spool.status().samples
    sent: set[bytes] = set()
    while taken := spool.take(50, 1 << 20):
        sent |= {item.sample_id for item in taken}
        assert len(sent) <= waiting
        spool.settle([Settled(item) for item in taken], {})
        left = waiting - len(sent)
        until(lambda left=left: spool.status().samples == left)
    spool.close()
    counts = counters.snapshot()
    assert len(sent) == waiting  # none is stuck in the file
    assert sent <= routed
    assert counts["samples_acknowledged"] + counts["samples_dropped"] == counts["samples_forwarded"] == ROUTED
    assert counts["samples_dropped"] == len(routed - delivered - sent)
    again, counters = spool_at(folder)
    again.close()
    assert counters.snapshot() == counts
    if damage not in (to_nothing, the_file_is_gone):
        assert len(sent) > 100  # readable samples


def test_samples_delivered_before_the_damage_are_not_sent_again(tmp_path: Path) -> None:
    spool, counters = spool_at(tmp_path)
    put(spool, [sample(0.01 * number, 3000) for number in range(1, 51)], samples_forwarded=50)
    flying = spool.take(20, 1 << 20)
    with closing(sqlite3.connect(tmp_path / "spool.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray((tmp_path / "spool.db").read_bytes())
    middle = len(data) * 3 // 4
    data[middle : middle + 2 * PAGE] = b"\xff" * 2 * PAGE
    (tmp_path / "spool.db").write_bytes(data)
    spool.settle([Settled(item) for item in flying[:10]], {})
    assert spool.take(50, 1 << 20) == []  # it comes upon the damage
    until(lambda: counters.snapshot()["spools_set_aside"] == 1)
    spool.settle([Settled(item, "no" if number else "") for number, item in enumerate(flying[10:])], {})
    settled = {item.sample_id for item in flying}
    until(lambda: counters.snapshot()["samples_refused"] == 9)
    rest = spool.take(50, 1 << 20)
    spool.close()
    assert not settled & {item.sample_id for item in rest}
    counts = counters.snapshot()
    assert counts["samples_acknowledged"] == 11
    assert counts["samples_dropped"] + len(rest) == 30


def test_a_disk_that_damages_the_file_again_and_again_is_not_filled_with_them(tmp_path: Path) -> None:
    for _ in range(5):
        (tmp_path / "spool.db").write_bytes(b"no database at all" * 1000)
        spool, _ = spool_at(tmp_path)
        spool.close()
    assert len(list(tmp_path.glob("spool.db.damaged-*"))) == MAX_SET_ASIDE


def _open_as_nobody(path: Path) -> None:
    if os.geteuid() == 0:  # to whom all files are open
        os.setgid(65534)
        os.setuid(65534)
    try:
        Spool(path, SpoolSettings(), Counters())
    except StorageError as error:
        print(error)
        raise SystemExit(StorageError.exit_code) from None


def test_a_file_that_may_not_be_written_is_one_clear_error_and_stays_as_it_is(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "spool.db"
        spool = Spool(path, SpoolSettings(), Counters())
        put(spool, [NewSample(b"0" * 16, 0.1, b"data")])
        spool.close()
        before = path.read_bytes()
        path.chmod(0o444)
        path.parent.chmod(0o555)
        process = Forked(tmp_path / "log", _open_as_nobody, path)
        code = process.wait(20)
        path.parent.chmod(0o755)
        assert code == StorageError.exit_code, (tmp_path / "log").read_text()
        assert f"{path}: cannot be opened" in (tmp_path / "log").read_text()
        assert path.read_bytes() == before
        assert time.time() - path.stat().st_mtime < 60

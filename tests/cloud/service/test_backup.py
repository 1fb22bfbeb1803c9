"""Backup, restore and doctor: nothing is lost between the two back ends, and faults are named."""

import asyncio
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select
from typer.testing import CliRunner, Result

from cloud.service import segment_copies
from cloud.service.data_dir import prepare, service_lock
from cloud.settings import StoreLocation
from cloud.store import open_store
from cloud.store.copying import TABLES
from cloud.store.events import newest_cursor
from cloud.store.group_commit import GroupCommit
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.schema import events, verdict_counts
from cloud.store.segment_holds import SegmentHold
from shared import cli
from shared.errors import SettingsError, StorageError
from shared.signing_keys import public_pem
from tests.cloud.console.filled_store import KEY, KINDS, Fleet
from tests.cloud.console.filled_store import open_store as open_filled
from tests.cloud.store.backends import large_request


def run(folder: Path, config: str, *words: str) -> Result:
    return CliRunner().invoke(cli.build("cloud").root, ["cloud", *words, "--config", str(folder / config)])


def done(folder: Path, config: str, *words: str) -> str:
    result = run(folder, config, *words)
    assert result.exception is None, result.exception
    return result.stdout


def write_config(folder: Path, name: str, url: str = "") -> StoreLocation:
    """Write settings with a data directory of the same name."""
    (folder / "key.pem").write_bytes(public_pem(KEY.public_key()))
    payloads = f"file://{folder / name}-payloads" if url else ""
    values = {"data_dir": folder / name, "store_url": url, "bundle_key": folder / "key.pem", "payload_store": payloads}
    (folder / f"{name}.toml").write_text("".join(f'{key} = "{value}"\n' for key, value in values.items()))
    return StoreLocation(folder / name, url, payloads_url=payloads)


@pytest.fixture
def service(tmp_path: Path) -> StoreLocation:
    """A SQLite store with verdicts of each kind, a label, and events of which the newest were deleted."""

    async def fill() -> None:
        store, registry = open_filled(tmp_path / "first")
        async with store:
            fleet = Fleet(store, registry)
            await fleet.enrol()
            made = [await fleet.send(kind, at_s=1e9 + place) for place, kind in enumerate(KINDS)]
            await add_label(store, made[0].sample_id, NewLabel(Label.REAL, "Ada", "seen"), "user:ada")
            async with store.writing() as connection:
                newest = {"device_id": "", "kind": "bundle_changed", "created_at_s": 0.0}
                await connection.execute(insert(events).values(cursor=5000, **newest))
                await connection.execute(events.delete().where(events.c.cursor == 5000))

        async with open_store(tmp_path / "first") as store:
            waiting, _ = large_request(20_000, 30_000, device_id=KINDS[0].device_id)
            assert await GroupCommit(store).store(waiting) == {}

    asyncio.run(fill())
    location = write_config(tmp_path, "first")
    prepare(location)
    return location


def contents(location: StoreLocation) -> dict[str, list[Any]]:
    async def read() -> dict[str, list[Any]]:
        async with open_store(location) as store, store.reading() as connection:
            found = {}
            for table in (*TABLES, verdict_counts):
                rows = (await connection.execute(select(table).order_by(*table.primary_key))).all()
                found[table.name] = [tuple(row) for row in rows]
            return found

    return asyncio.run(read())


def next_cursor(location: StoreLocation) -> int:
    async def add() -> int:
        async with open_store(location) as store:
            async with store.writing() as connection:
                await connection.execute(insert(events).values(device_id="", kind="bundle_changed", created_at_s=0.0))
            return await newest_cursor(store)

    return asyncio.run(add())


def segments_in(folder: Path) -> dict[str, bytes]:
    """Contents of the segments below a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.rglob("*.segment")}


def test_a_backup_keeps_its_hold_and_says_how_many_segments_are_lost(
    tmp_path: Path, service: StoreLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed = list[SegmentHold]()
    monkeypatch.setattr(segment_copies, "RENEW_S", 0.001)
    monkeypatch.setattr(SegmentHold, "renew", lambda hold: renewed.append(hold))
    (path,) = service.data_dir.rglob("*.segment")
    path.unlink()
    result = run(tmp_path, "first.toml", "backup", str(tmp_path / "one.tar"))
    assert "the payload store has lost 1 segments" in result.stderr
    assert len(renewed) > 2


def test_a_backup_with_segments_is_not_restored_where_they_have_no_place(
    tmp_path: Path, service: StoreLocation, new_database
) -> None:
    done(tmp_path, "first.toml", "backup", str(tmp_path / "one.tar"))
    assert segments_in(service.data_dir)
    write_config(tmp_path, "moved", new_database)
    config = tmp_path / "moved.toml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "payload_store" not in line))
    refused = run(tmp_path, "moved.toml", "restore", str(tmp_path / "one.tar"))
    assert "Set payload_store" in str(refused.exception)
    assert not (tmp_path / "moved" / "bundles").exists()


def test_a_backup_moves_a_service_to_postgresql_and_back(tmp_path: Path, service: StoreLocation, new_database) -> None:
    before = contents(service)
    assert before["verdicts"]
    segments = segments_in(service.data_dir / "payloads")
    assert sum(map(len, segments.values())) >= 50_000
    archive, second = tmp_path / "one.tar", tmp_path / "two.tar"
    with service_lock(service.data_dir):  # beside a running service
        done(tmp_path, "first.toml", "backup", str(archive))
    assert archive.stat().st_mode & 0o777 == 0o600
    on_postgres = write_config(tmp_path, "moved", new_database)
    assert "restored the state of" in done(tmp_path, "moved.toml", "restore", str(archive))
    assert contents(on_postgres) == before
    assert segments_in(tmp_path / "moved-payloads") == segments
    assert next_cursor(on_postgres) == 5001  # a cursor is never used twice
    done(tmp_path, "moved.toml", "backup", str(second))
    returned = write_config(tmp_path, "returned")
    done(tmp_path, "returned.toml", "restore", str(second))
    assert {name: rows for name, rows in contents(returned).items() if name != "events"} == {
        name: rows for name, rows in before.items() if name != "events"
    }
    assert next_cursor(returned) == 5002
    assert segments_in(returned.data_dir / "payloads") == segments
    assert (service.data_dir / "payloads").exists()
    assert [path.name for path in (service.data_dir / "payloads").glob("*/holds/*")] == []
    for folder in ("bundles", "pki"):
        files = {path.name: path.read_bytes() for path in (service.data_dir / folder).iterdir()}
        assert files == {path.name: path.read_bytes() for path in (returned.data_dir / folder).iterdir()}
    assert (returned.data_dir / "pki" / "ca.key").stat().st_mode & 0o777 == 0o600
    refused = run(tmp_path, "moved.toml", "restore", str(archive))
    assert isinstance(refused.exception, StorageError)
    assert "holds bundles already" in str(refused.exception)
    write_config(tmp_path, "third", new_database)
    assert "holds rows already" in str(run(tmp_path, "third.toml", "restore", str(archive)).exception)


def test_a_backup_without_the_authority_says_so(tmp_path: Path, service: StoreLocation) -> None:
    shutil.rmtree(service.data_dir / "pki")
    result = run(tmp_path, "first.toml", "backup", str(tmp_path / "one.tar"))
    assert result.exit_code == 0
    assert "the backup holds no certificate authority" in result.stderr
    assert "secret key" not in result.stdout
    with tarfile.open(tmp_path / "one.tar") as archive:
        assert not [name for name in archive.getnames() if "pki" in name]


def test_what_is_no_backup_or_no_place_for_one_is_refused(tmp_path: Path, service: StoreLocation) -> None:
    archive, other = tmp_path / "one.tar", tmp_path / "other.tar"
    archive.write_bytes(b"precious")
    assert "exists already" in str(run(tmp_path, "first.toml", "backup", str(archive)).exception)
    assert archive.read_bytes() == b"precious"
    with tarfile.open(other, "w") as made:
        made.add(tmp_path / "key.pem", "key.pem")
    write_config(tmp_path, "new")
    for path in (archive, other, tmp_path / "missing.tar"):
        result = run(tmp_path, "new.toml", "restore", str(path))
        assert isinstance(result.exception, SettingsError)
        assert "not a backup" in str(result.exception)
    assert not (tmp_path / "new").exists()


def test_the_doctor_finds_nothing_and_then_each_fault(tmp_path: Path, service: StoreLocation) -> None:
    def states() -> dict[str, str]:
        path = tmp_path / "checks.json"
        run(tmp_path, "first.toml", "doctor", "--json", str(path))
        return {check["name"]: check["state"] for check in json.loads(path.read_text())["checks"]}

    healthy = states()
    assert set(healthy.values()) <= {"ok"}, healthy
    names = {"store", "writing", "inbox", "bundle", "keys", "device clocks", "authority", "secret key", "disk"}
    names |= {"payload store", "segments"}
    assert names == set(healthy)
    (service.data_dir / "pki" / "ca.key").chmod(0o644)
    next((service.data_dir / "bundles").glob("*.edge.vedette")).unlink()
    broken = states()
    assert broken["secret key"] == "failed"
    result = run(tmp_path, "first.toml", "doctor")
    assert isinstance(result.exception, StorageError)
    assert "bundle" in str(result.exception)
    assert "Publish" in result.stdout or "publish" in result.stdout


def test_the_doctor_makes_no_key_and_names_what_is_missing(tmp_path: Path, postgres_url: str, own_home: Path) -> None:
    write_config(tmp_path, "elsewhere", postgres_url)
    config = tmp_path / "elsewhere.toml"
    config.write_text("\n".join(line for line in config.read_text().splitlines() if "bundle_key" not in line))
    result = run(tmp_path, "elsewhere.toml", "doctor")
    assert isinstance(result.exception, StorageError)
    assert f"{own_home / 'signing.pem'}: this user has no key" in result.stdout
    assert f"{tmp_path / 'elsewhere'}: cannot be examined (No such file or directory)" in result.stdout
    assert not own_home.exists()
    assert not (tmp_path / "elsewhere").exists()


def test_the_doctor_warns_of_a_server_that_can_lose_acknowledged_samples(tmp_path: Path, postgres_url: str) -> None:
    location = write_config(tmp_path, "onpostgres", postgres_url)
    prepare(location)
    text = done(tmp_path, "onpostgres.toml", "doctor")
    assert "fsync and full_page_writes off" in text
    assert "the server's clock is" in text

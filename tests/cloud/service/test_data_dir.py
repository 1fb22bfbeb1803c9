"""Authority of a database that several machines use: copied from the first, never made a second time."""

import asyncio
import shutil
from pathlib import Path

import pytest
from sqlalchemy import insert

from cloud.service.data_dir import migrate_existing, open_existing, prepare
from cloud.settings import StoreLocation
from cloud.store import open_store
from cloud.store.schema import devices
from shared.errors import CertificateError


def enrol(location: StoreLocation) -> None:
    row = {"device_id": "one", "enrolled_at_s": 0.0, "certificate_serial": "1", "certificate_expires_at_s": 9e9}

    async def work() -> None:
        async with open_store(location) as store, store.writing() as connection:
            await connection.execute(insert(devices).values(row))

    asyncio.run(work())


def test_a_machine_without_the_authority_of_its_database_makes_none(tmp_path: Path, postgres_url: str) -> None:
    first, second = (StoreLocation(tmp_path / name, postgres_url) for name in ("first", "second"))
    pki = second.data_dir / "pki"
    authority = prepare(first)
    with pytest.raises(CertificateError, match="Copy pki/ from the machine"):  # a command, even before the first device
        open_existing(second)
    enrol(first)
    with pytest.raises(CertificateError, match=r"is not on this machine\. Copy pki/ .*docs/ROLES\.md"):
        prepare(second)
    migrate_existing(second)  # other commands go on
    assert not pki.exists()
    shutil.copytree(first.data_dir / "pki", pki)
    assert prepare(second).sha256 == open_existing(second).sha256 == authority.sha256


def test_a_command_makes_no_authority_for_a_file_that_lost_its_own(tmp_path: Path) -> None:
    prepare(tmp_path)
    shutil.rmtree(tmp_path / "pki")
    with pytest.raises(CertificateError, match="Restore it from a backup"):
        open_existing(tmp_path)
    assert not (tmp_path / "pki").exists()

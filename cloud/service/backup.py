"""Backups: one archive with a copy of the store, its segments, the archives of the bundles and the authority.

The copy of the store is a SQLite file for each back end, so that a backup can be restored into either. Segments come
from the payload store, and go into the one that the restored service names.
"""

import asyncio
import json
import os
import shutil
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cloud.service.authority import PKI_FOLDER
from cloud.service.data_dir import service_lock
from cloud.service.segment_copies import HeldSegments, check_place, held_segments, place_segments
from cloud.settings import PAYLOADS_FOLDER, StoreLocation
from cloud.store import open_store
from cloud.store.bundle_files import BUNDLES_FOLDER
from cloud.store.copying import copy_rows, is_empty
from cloud.store.engine import store_exists
from cloud.store.migrate import migrate, newest_revision
from cloud.store.sqlite.store import DATABASE_FILE
from shared.errors import FileNotWrittenError, SettingsError, StorageError
from shared.files import synchronise_folder

FORMAT = 1
FACTS_FILE = "backup.json"
_SECRET_FOLDERS = (PKI_FOLDER,)
_FOLDERS = (BUNDLES_FOLDER, *_SECRET_FOLDERS)
_SPARE = 1.1  # times the size of the archive: disk space for unpacking


@dataclass(frozen=True, slots=True)
class BackupFacts:
    """Contents of a backup's first member."""

    format: int
    made_at_s: float
    revision: str
    store: str


@dataclass(frozen=True, slots=True)
class MadeBackup:
    """Size of a backup, and the number of segments that the store names and the payload store has lost."""

    bytes: int
    missing_segments: int


def make_backup(location: StoreLocation, path: Path) -> MadeBackup:
    """Write a backup of a service, which may run, to a new file readable only by its owner.

    Raises SettingsError if the file exists, StorageError if the store cannot be read or the file not written.
    """
    if path.exists() or path.is_symlink():
        raise SettingsError(f"{path}: exists already. Give the backup another name.")
    if not path.absolute().parent.is_dir():
        raise SettingsError(f"{path}: its folder does not exist. Make it, or give another path.")
    unfinished = path.with_name(f".{path.name}.new")
    try:
        with (
            tempfile.TemporaryDirectory(prefix=".backup-", dir=path.absolute().parent) as folder,
            held_segments(location) as segments,
        ):
            asyncio.run(_copy_store(location, Path(folder)))
            # The store first: a bundle or segment that it names was written before it.
            missing = _pack(location, Path(folder), unfinished, segments)
        unfinished.rename(path)
        synchronise_folder(path.absolute().parent)
    except OSError as error:
        raise FileNotWrittenError(f"{path}: cannot be written ({error.strerror or error}). Free space there.") from None
    finally:
        unfinished.unlink(missing_ok=True)
    return MadeBackup(path.stat().st_size, missing)


def restore_backup(location: StoreLocation, path: Path) -> BackupFacts:
    """Make a service's data directory and store from a backup.

    Raises SettingsError if the file is no backup, StorageError if there is a service already or no space.
    """
    with _opened(path) as archive:
        facts = _facts(archive, path)
        try:
            location.data_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
            with service_lock(location.data_dir):
                _check_new(location)
                _check_space(location.data_dir, path)
                with tempfile.TemporaryDirectory(prefix=".restore-", dir=location.data_dir) as folder:
                    archive.extractall(folder, filter="data")
                    migrate(StoreLocation(Path(folder)))
                    check_place(location, Path(folder))
                    _put_in_place(location, Path(folder))
        except (OSError, tarfile.TarError) as error:
            raise StorageError(
                f"{location.data_dir}: cannot be restored ({error}). Free space, and try again."
            ) from None
    return facts


async def _copy_store(location: StoreLocation, folder: Path) -> None:
    async with open_store(location) as store:
        await store.copy_to(folder)


def _pack(location: StoreLocation, folder: Path, path: Path, segments: HeldSegments | None) -> int:
    """Write the archive; return the number of missing segments."""
    facts = BackupFacts(FORMAT, time.time(), newest_revision(), "PostgreSQL" if location.url else "SQLite")
    (folder / FACTS_FILE).write_text(json.dumps(asdict(facts), indent=2))
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name in (FACTS_FILE, DATABASE_FILE):
                archive.add(folder / name, name)
            for name in _FOLDERS:
                if (location.data_dir / name).is_dir():
                    archive.add(location.data_dir / name, name)
            missing = segments.add_to(archive, folder / DATABASE_FILE) if segments is not None else 0
        file.flush()
        os.fsync(file.fileno())
    return missing


def _opened(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path)
    except (OSError, tarfile.TarError) as error:
        raise SettingsError(f"{path}: not a backup ({error}). Name a file of vedette cloud backup.") from None


def _facts(archive: tarfile.TarFile, path: Path) -> BackupFacts:
    try:
        member = archive.extractfile(FACTS_FILE)
        assert member is not None
        facts = BackupFacts(**json.loads(member.read()))
    except (KeyError, ValueError, TypeError, AssertionError, tarfile.TarError):
        raise SettingsError(f"{path}: not a backup. Name a file of vedette cloud backup.") from None
    if facts.format != FORMAT:
        raise SettingsError(f"{path}: made by another version of Vedette. Update Vedette.")
    return facts


def _check_new(location: StoreLocation) -> None:
    """Raise StorageError unless neither the directory nor the database holds anything of a service."""
    for name in (DATABASE_FILE, PAYLOADS_FOLDER, *_FOLDERS):
        if (location.data_dir / name).exists():
            raise StorageError(f"{location.data_dir}: holds {name} already. Move it away, or set data_dir elsewhere.")
    if location.url and store_exists(location):

        async def check() -> bool:
            async with open_store(location) as store, store.reading() as connection:
                return await is_empty(connection)

        if not asyncio.run(check()):
            raise StorageError(f"{location}: holds rows already. Make a new database, and name it in store_url.")


def _check_space(folder: Path, path: Path) -> None:
    free, needed = shutil.disk_usage(folder).free, int(path.stat().st_size * _SPARE)
    if free < needed:
        raise StorageError(f"{folder}: {free} bytes are free, and the backup needs {needed}. Free some space.")


def _put_in_place(location: StoreLocation, folder: Path) -> None:
    """Move the parts of a backup into the data directory, the store last: before it there is no service."""
    for name in _FOLDERS:
        if (folder / name).exists():
            (folder / name).rename(location.data_dir / name)
    if location.url:
        migrate(location)
        asyncio.run(place_segments(location, location, folder))
        asyncio.run(_fill(location, folder))
    else:
        asyncio.run(place_segments(location, StoreLocation(folder), folder))
        (folder / DATABASE_FILE).rename(location.data_dir / DATABASE_FILE)
    synchronise_folder(location.data_dir)


async def _fill(location: StoreLocation, folder: Path) -> None:
    async with (
        open_store(folder) as source,
        open_store(location) as store,
        source.reading() as rows,
        store.writing() as connection,
    ):
        await copy_rows(rows, connection)

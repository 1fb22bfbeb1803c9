"""Segments in backups: copied from the payload store while a hold keeps them, and placed into another one."""

import asyncio
import contextlib
import io
import secrets
import sqlite3
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from sqlalchemy import insert, inspect

from cloud.settings import PAYLOADS_FOLDER, StoreLocation
from cloud.store import open_store
from cloud.store.engine import store_exists
from cloud.store.objects import Objects, objects_at
from cloud.store.schema import segment_folder
from cloud.store.segment_holds import SegmentHold
from cloud.store.segments import segment_name, segment_of
from shared.errors import StorageError

RENEW_S = 60.0
_SEGMENTS = " UNION ".join(
    f"SELECT segment_id FROM {table} WHERE segment_id IS NOT NULL" for table in ("payloads", "anomaly_maps", "inbox")
)


class HeldSegments:
    """Segments that stay while a backup is made, however long that takes. Its calls block; they raise StorageError."""

    def __init__(self, objects: Objects) -> None:
        self._objects, self._hold = objects, SegmentHold(objects)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="hold", daemon=True)
        self._thread.start()

    def add_to(self, archive: tarfile.TarFile, database: Path) -> int:
        """Add the segments that a SQLite store names to an archive; return the number of those that are missing."""
        missing = 0
        with closing(sqlite3.connect(database)) as connection:
            for (segment_id,) in connection.execute(_SEGMENTS):
                name = segment_name(segment_id)
                if (data := self._objects.read(name)) is None:
                    missing += 1
                    continue
                member = tarfile.TarInfo(f"{PAYLOADS_FOLDER}/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return missing

    def release(self) -> None:
        """Let segments be removed again."""
        self._ended.set()
        self._thread.join()
        self._hold.release()

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            with contextlib.suppress(StorageError):  # the hold counts for many times as long
                self._hold.renew()


@contextlib.contextmanager
def held_segments(location: StoreLocation) -> Iterator[HeldSegments | None]:
    """Hold the segments of a store; None if it has none."""
    objects = asyncio.run(_objects(location))
    held = HeldSegments(objects) if objects is not None and objects.exist() else None
    try:
        yield held
    finally:
        if held is not None:
            held.release()


async def _objects(location: StoreLocation) -> Objects | None:
    if not location.segments_url or not store_exists(location):
        return None
    async with open_store(location) as store:
        async with store.reading() as connection:
            has_segments = await connection.run_sync(lambda sync: inspect(sync).has_table(segment_folder.name))
        return await store.segments.existing() if has_segments else None  # a store of an older version has none


async def place_segments(location: StoreLocation, store_location: StoreLocation, folder: Path) -> None:
    """Move the unpacked segments of a backup to the payload store of `location`, into a new folder.

    The store at `store_location` gets the name of that folder. Raises StorageError.
    """
    async with open_store(store_location) as store, store.writing() as connection:
        name = secrets.token_hex(8)
        await connection.execute(segment_folder.delete())
        await connection.execute(insert(segment_folder).values(name=name))
    if segments := _unpacked(folder):
        await asyncio.to_thread(_move, segments, objects_at(f"{location.segments_url.rstrip('/')}/{name}"))


def check_place(location: StoreLocation, folder: Path) -> None:
    """Raise StorageError if a backup was unpacked whose segments have no place at `location`."""
    if not location.segments_url and _unpacked(folder):
        raise StorageError(
            f"{location}: the backup holds payloads outside the database. Set payload_store to a place for them."
        )


def _unpacked(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / PAYLOADS_FOLDER).glob("*/*") if path.is_file())


def _move(segments: Sequence[Path], objects: Objects) -> None:
    objects.make()
    for path in segments:
        name = f"{path.parent.name}/{path.name}"
        if segment_of(name) is not None:
            objects.write_new(name, [path.read_bytes()])
        path.unlink()

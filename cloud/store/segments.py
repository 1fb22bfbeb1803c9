"""Segments: objects outside the database that hold large payloads and maps, each written once.

A segment holds values one after the other; the rows of the database hold the place of each. A segment is durable before
the transaction that stores these places, so a process that dies in between leaves a segment without places, which
`cloud.store.segment_upkeep` removes. Its name follows from its id: the hour in which it was written, then the id.
"""

import asyncio
import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from sqlalchemy import insert, select

from cloud.store.objects import Objects, Range, Read, Unreadable, objects_at
from cloud.store.schema import anomaly_maps, inbox, payloads, segment_folder
from shared.errors import StorageError

if TYPE_CHECKING:
    from cloud.store.engine import Store

LEAST_VALUE_BYTES = 4096  # smaller values are cheaper in the database
LEAST_SEGMENT_BYTES = 16 * 1024  # of the values of one request that leave the database
MOST_SEGMENT_BYTES = 32 * 2**20  # unless one request alone has more
# A transaction begins within half of it after its segment was written, and has ended after all of it.
SETTLED_S = 120.0
PLACE_COLUMNS = ("segment_id", "segment_start", "segment_bytes", "segment_crc32")
SUFFIX = ".segment"
_NAME = select(segment_folder.c.name)
_PLACE = struct.Struct("<III")  # start, size, CRC-32


class SegmentPlace(NamedTuple):
    """Place of a value in a segment, in bytes; the values of PLACE_COLUMNS."""

    segment_id: bytes
    start: int
    size: int
    crc32: int


class SegmentValue(NamedTuple):
    """Value to be written to a segment, with its CRC-32 if that is known."""

    data: bytes
    crc32: int | None = None


NO_PLACE = (None, None, None, None)
"""Values of PLACE_COLUMNS of a row that holds its value itself."""


@dataclass(frozen=True, slots=True)
class LostValue:
    """Value that cannot be returned; `reason` names no path of the server.

    `is_gone`: for good. Otherwise its segment is there, and a later attempt may read it.
    """

    reason: str
    is_gone: bool = True


Values: TypeAlias = Mapping[SegmentPlace, bytes | LostValue]


def new_segment_id() -> bytes:
    """Return a new id of 16 bytes: milliseconds since the epoch, then random bits."""
    return int(time.time() * 1000).to_bytes(6, "big") + os.urandom(10)


def written_at_s(segment_id: bytes) -> float:
    """Return when a segment was written, in seconds since the epoch."""
    return int.from_bytes(segment_id[:6], "big") / 1000


def is_settled(segment_id: bytes | None) -> bool:
    """Return whether a segment is so old that no transaction may begin to use it; False for None."""
    return segment_id is not None and time.time() - written_at_s(segment_id) > SETTLED_S / 2


def refuse_settled(segment_ids: Iterable[bytes | None]) -> None:
    """Raise StorageError if no transaction may begin to use one of these segments.

    Call it when the transaction has begun: the wait for the lock of writers may be long.
    """
    if any(map(is_settled, segment_ids)):
        raise StorageError("The store was too slow for values whose segment was written already.")


def segment_name(segment_id: bytes) -> str:
    """Return the name of a segment's object."""
    return f"{datetime.fromtimestamp(written_at_s(segment_id), UTC):%Y-%m-%dT%H}/{segment_id.hex()}{SUFFIX}"


def segment_of(name: str) -> bytes | None:
    """Return the id of the segment whose object has this name; None for another object."""
    stem = name.rpartition("/")[2].removesuffix(SUFFIX)
    try:
        segment_id = bytes.fromhex(stem)
    except ValueError:
        return None
    return segment_id if len(segment_id) == 16 and segment_name(segment_id) == name else None


def place_of(row: Mapping[Any, Any]) -> SegmentPlace | None:
    """Return the place of a row's value; None if the row holds it itself."""
    if row["segment_id"] is None:
        return None
    return SegmentPlace(*(row[name] for name in PLACE_COLUMNS))


def places_to_bytes(places: Sequence[SegmentPlace | None]) -> bytes:
    """Return the places of values in one segment as the inbox keeps them."""
    return b"".join([_PLACE.pack(*place[1:]) if place is not None else bytes(_PLACE.size) for place in places])


def places_from_bytes(segment_id: bytes, data: bytes) -> list[SegmentPlace | None]:
    """Return the places that `places_to_bytes` has written."""
    return [SegmentPlace(segment_id, *found) if found[1] else None for found in _PLACE.iter_unpack(data)]


class Segments:
    """Segments of one store, below a URL; without one all values stay in the database."""

    def __init__(self, store: "Store", url: str) -> None:
        self._store, self.url = store, url
        self._objects: Objects | None = None
        self._is_made = False
        self.unreadable: dict[bytes, int] = {}
        """Number of values of each segment that the upkeep could not read; it tries again."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="segments")

    @property
    def are_used(self) -> bool:
        """Whether large values leave the database."""
        return bool(self.url)

    async def objects(self) -> Objects:
        """Return the folder of this store's segments, which gets its name now if it has none. Raises StorageError."""
        if not self.url:
            raise StorageError("Payloads of this store lie outside the database: set payload_store to their place.")
        if (objects := await self.existing()) is not None:
            return objects
        async with self._store.writing() as connection:
            if (await connection.execute(_NAME)).first() is None:  # unless another process was faster
                await connection.execute(insert(segment_folder).values(name=secrets.token_hex(8)))
        objects = await self.existing()
        assert objects is not None
        return objects

    async def existing(self) -> Objects | None:
        """Return the folder of this store's segments; None if it has none yet. Raises StorageError."""
        if self._objects is None and self.url:
            async with self._store.reading() as connection:
                name = (await connection.execute(_NAME)).scalar_one_or_none()
            if name is not None:
                self._objects = objects_at(f"{self.url.rstrip('/')}/{name}")
        return self._objects

    async def write(self, values: Sequence[SegmentValue]) -> list[SegmentPlace]:
        """Write a new segment, durably; return the places of its values. Raises StorageError."""
        objects = await self.objects()
        if not self._is_made:
            await self._make(objects)
        segment_id = new_segment_id()
        checksums = await asyncio.get_running_loop().run_in_executor(self._thread, _write, objects, segment_id, values)
        return list(_places(segment_id, values, checksums))

    def close(self) -> None:
        """End the thread that writes, after the segment that it is writing."""
        self._thread.shutdown(wait=False)

    async def read(self, places: Sequence[SegmentPlace]) -> Values:
        """Return the values at these places; raises StorageError if they cannot be reached now."""
        if not places:
            return {}
        return await asyncio.to_thread(_read, await self.objects(), sorted(set(places)))

    async def _make(self, objects: Objects) -> None:
        """Make the folder of a new store; one that is gone is a disk that is not mounted."""
        if not await asyncio.to_thread(objects.exist):
            async with self._store.reading() as connection:
                for table in (payloads, inbox, anomaly_maps):
                    query = select(table.c.number).where(table.c.segment_id.is_not(None)).limit(1)
                    if (await connection.execute(query)).first() is not None:
                        raise _gone(objects)
            await asyncio.to_thread(objects.make)
        self._is_made = True


def _write(objects: Objects, segment_id: bytes, values: Sequence[SegmentValue]) -> list[int]:
    """Write a segment; return the checksums. Few calls give the interpreter's lock away: each waits to get it again."""
    objects.write_new(segment_name(segment_id), [value.data for value in values])
    return [zlib.crc32(value.data) if value.crc32 is None else value.crc32 for value in values]


def _places(segment_id: bytes, values: Sequence[SegmentValue], checksums: Sequence[int]) -> Iterator[SegmentPlace]:
    start = 0
    for value, checksum in zip(values, checksums, strict=True):
        yield SegmentPlace(segment_id, start, len(value.data), checksum)
        start += len(value.data)


def _read(objects: Objects, places: Sequence[SegmentPlace]) -> dict[SegmentPlace, bytes | LostValue]:
    ranges = [Range(segment_name(place.segment_id), place.start, place.size) for place in places]
    found = {place: _checked(place, data) for place, data in zip(places, objects.read_ranges(ranges), strict=True)}
    if any(isinstance(value, LostValue) for value in found.values()) and not objects.exist():
        raise _gone(objects)
    return found


def _gone(objects: Objects) -> StorageError:
    return StorageError(f"{objects.url}: is not there. Mount the disk, or set payload_store to the right place.")


def _checked(place: SegmentPlace, data: Read) -> bytes | LostValue:
    name = place.segment_id.hex()
    if isinstance(data, Unreadable):
        return LostValue(f"segment {name} cannot be read now: {data.reason}", is_gone=False)
    if data is None:
        return LostValue(f"segment {name} is missing")
    if len(data) < place.size:
        return LostValue(f"segment {name} is cut short")
    if zlib.crc32(data) != place.crc32:
        return LostValue(f"segment {name} is damaged: a checksum does not match")
    return data

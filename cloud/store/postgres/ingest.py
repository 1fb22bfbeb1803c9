"""SQL of the inbox on PostgreSQL: one statement for all requests, one for all samples; their columns are arrays."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.inbox_request import (
    INBOX_COLUMNS,
    PACKED_COLUMNS,
    Doubles,
    InboxRequest,
    Owners,
    Packed,
    Unpacking,
    ids_in,
)
from cloud.store.postgres.partitions import driver_of
from cloud.store.sample_rows import PAYLOAD_COLUMNS, SAMPLE_COLUMNS, Row
from cloud.store.segments import refuse_settled

_TYPES = {
    "sample_id": "bytea",
    "received_at_s": "float8",
    "captured_at_s": "float8",
    "edge_score": "float8",
    "edge_p_value": "float8",
    "edge_extrapolated": "bool",
    "traced": "bool",
    "payload_bytes": "int4",
    "encoding": "int4",
    "data": "bytea",
    "part": "bytea",
    "edge_map_height": "int4",
    "edge_map_width": "int4",
    "edge_map": "bytea",
    "segment_id": "bytea",
    "segment_start": "int8",
    "segment_bytes": "int4",
    "segment_crc32": "int8",
}
_COLUMNS = (*SAMPLE_COLUMNS, *PAYLOAD_COLUMNS)
_ARRAYS = ", ".join(f"${place}::{_TYPES.get(name, 'text')}[]" for place, name in enumerate(_COLUMNS, 1))
_PAYLOAD_VALUES = ", ".join(f"given.{name}" + ("::json" if name == "shape" else "") for name in PAYLOAD_COLUMNS)
_INSERT = f"""
WITH given AS (SELECT * FROM unnest({_ARRAYS}) WITH ORDINALITY AS g({", ".join(_COLUMNS)}, place)),
new AS (
  INSERT INTO sample_keys (sample_id, number, device_id)
  SELECT sample_id, nextval('samples_number_seq'), device_id
  FROM (SELECT sample_id, device_id FROM given ORDER BY place) AS in_order
  ON CONFLICT (sample_id) DO NOTHING RETURNING number, sample_id
),
stored AS (
  INSERT INTO samples (number, {", ".join(SAMPLE_COLUMNS)})
  SELECT new.number, {", ".join(f"given.{name}" for name in SAMPLE_COLUMNS)} FROM new JOIN given USING (sample_id)
),
sent AS (
  INSERT INTO payloads (number, {", ".join(PAYLOAD_COLUMNS)})
  SELECT new.number, {_PAYLOAD_VALUES} FROM new JOIN given USING (sample_id)
)
SELECT sample_id FROM new"""
_OWNERS = "SELECT sample_id, device_id FROM sample_keys WHERE sample_id = ANY($1::bytea[])"


_REQUEST_COLUMNS = ", ".join(INBOX_COLUMNS)
_INSERT_REQUESTS = f"""
WITH given AS (
  SELECT * FROM unnest($1::bytea[], $2::text[], $3::float8[], $4::int4[], $5::int8[], $6::bytea[], $7::bytea[],
    $8::bytea[], $9::bytea[]) WITH ORDINALITY AS g({_REQUEST_COLUMNS}, place)
)
INSERT INTO inbox ({_REQUEST_COLUMNS}) SELECT {_REQUEST_COLUMNS} FROM given
WHERE NOT EXISTS (SELECT FROM sample_keys WHERE sample_keys.sample_id = given.first_sample_id) ORDER BY place
ON CONFLICT (first_sample_id) DO NOTHING RETURNING first_sample_id"""
_BEGUN = "SELECT device_id, data FROM inbox WHERE first_sample_id = $1"
_TAKE = f"""
SELECT number, {", ".join(PACKED_COLUMNS)} FROM inbox WHERE number = ANY($1::int8[]) FOR UPDATE SKIP LOCKED"""
_LEAVE = "DELETE FROM inbox WHERE number = ANY($1::int8[])"


async def insert_requests(connection: AsyncConnection, requests: Sequence[InboxRequest]) -> list[Owners | None]:
    """Put requests into the inbox by one statement, a transaction by itself; see `Store.append_requests`."""
    refuse_settled(item.segment_id for item in requests)
    driver = await driver_of(connection)
    columns = zip(*(item.values for item in requests), strict=True)
    found = await driver.fetch(_INSERT_REQUESTS, *(list(column) for column in columns))
    if len(found) == len(requests):
        return [None] * len(requests)
    new, outcomes = {bytes(row[0]) for row in found}, list[Owners | None]()
    for item in requests:
        first = item.sample_ids[0]
        outcomes.append(None if first in new else await _owners(driver, item.sample_ids))
        new.discard(first)
    return outcomes


async def unpack(connection: AsyncConnection, numbers: Sequence[int]) -> list[Doubles]:
    """Turn requests of the inbox into samples, as one transaction; see `Store.unpack`."""
    driver = await driver_of(connection)
    async with driver.transaction():  # SQLAlchemy begins one only with its own first statement
        found: dict[int, Packed] = {row[0]: tuple(row)[1:] for row in await driver.fetch(_TAKE, list(numbers))}
        if not found:
            return []
        unpacking = Unpacking([found[number] for number in numbers if number in found])
        old = await _insert_samples(driver, unpacking.rows)
        await driver.execute(_LEAVE, list(found))
        return unpacking.doubles(old)


async def _owners(driver: Any, sample_ids: Sequence[bytes]) -> Owners:
    """Return the owners of those samples that are rows, or in the request of the inbox that begins with the first."""
    owners: dict[bytes, str] = {}
    # The inbox first: a request that leaves it meanwhile is found as rows.
    for device_id, data in await driver.fetch(_BEGUN, sample_ids[0]):
        owners |= dict.fromkeys(ids_in(bytes(data)), str(device_id))
    return owners | {bytes(row[0]): str(row[1]) for row in await driver.fetch(_OWNERS, list(sample_ids))}


async def _insert_samples(driver: Any, rows: Sequence[Row]) -> dict[int, str]:
    """Insert new samples; return those that are not new, as `cloud.store.sqlite.ingest.insert_samples` does."""
    first: dict[bytes, int] = {}
    for place, row in enumerate(rows):
        first.setdefault(row[0][0], place)
    columns = zip(*((*rows[place][0], *rows[place][1]) for place in first.values()), strict=True)
    inserted = {bytes(found[0]) for found in await driver.fetch(_INSERT, *(list(column) for column in columns))}
    if len(inserted) == len(rows):
        return {}
    # A second statement: it sees what another process has committed while the first one waited.
    missing = [sample_id for sample_id in first if sample_id not in inserted]
    owners = {bytes(found[0]): str(found[1]) for found in await driver.fetch(_OWNERS, missing)}
    owners |= {sample_id: str(rows[first[sample_id]][0][1]) for sample_id in inserted}
    return {
        place: owners[row[0][0]]
        for place, row in enumerate(rows)
        if row[0][0] not in inserted or first[row[0][0]] != place
    }

"""SQL of ingest on PostgreSQL: one statement for all samples and payloads, their columns as arrays."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.sample_rows import PAYLOAD_COLUMNS, SAMPLE_COLUMNS, Row

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
}
_COLUMNS = (*SAMPLE_COLUMNS, *PAYLOAD_COLUMNS)
_ARRAYS = ", ".join(f"${place}::{_TYPES.get(name, 'text')}[]" for place, name in enumerate(_COLUMNS, 1))
_PAYLOAD_VALUES = ", ".join(f"given.{name}" + ("::json" if name == "shape" else "") for name in PAYLOAD_COLUMNS)
_INSERT = f"""
WITH given AS (SELECT * FROM unnest({_ARRAYS}) WITH ORDINALITY AS g({", ".join(_COLUMNS)}, place)),
new AS (
  INSERT INTO samples ({", ".join(SAMPLE_COLUMNS)}) SELECT {", ".join(SAMPLE_COLUMNS)} FROM given ORDER BY place
  ON CONFLICT (sample_id) DO NOTHING RETURNING number, sample_id
),
stored AS (
  INSERT INTO payloads (number, {", ".join(PAYLOAD_COLUMNS)})
  SELECT new.number, {_PAYLOAD_VALUES} FROM new JOIN given USING (sample_id)
)
SELECT sample_id FROM new"""
_OWNERS = "SELECT sample_id, device_id FROM samples WHERE sample_id = ANY($1::bytea[])"


async def insert_samples(connection: AsyncConnection, rows: Sequence[Row]) -> dict[int, str]:
    """Insert new samples, in the transaction of `connection`; see `Store.append_samples`."""
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
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

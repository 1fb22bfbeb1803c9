"""Tables and columns about segments: see `cloud.store.segments`."""

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, text

from cloud.store.metadata import metadata

segment_folder = Table(  # one row at most: the folder of this store's segments in the payload store, a random name
    "segment_folder",
    metadata,
    Column("name", String(32), primary_key=True),
)

dirty_segments = Table(  # with bytes of removed devices: they are rewritten without them
    "dirty_segments",
    metadata,
    Column("segment_id", LargeBinary(16), primary_key=True),
)


def place_columns() -> tuple[Column[Any], ...]:
    """Return the columns with the place of a value in a segment; NULL if the row itself holds the value."""
    return (
        Column("segment_id", LargeBinary(16)),
        Column("segment_start", BigInteger),
        Column("segment_bytes", Integer),
        Column("segment_crc32", BigInteger),
    )


def segment_index(table: str, *columns: str) -> Index:
    """Return the index that finds the rows of a segment."""
    is_outside = text("segment_id IS NOT NULL")
    return Index(f"ix_{table}_segment", *columns, sqlite_where=is_outside, postgresql_where=is_outside)

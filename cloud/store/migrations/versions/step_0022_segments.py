"""Places of payloads and maps in segments, outside the database.

Revision ID: 0022
Revises: 0021
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_STORED = ("payloads", "anomaly_maps")


def upgrade() -> None:
    """Add the columns, NULL for values in the database, and the empty tables."""
    for table in _STORED:
        op.add_column(table, sa.Column("segment_id", sa.LargeBinary(16)))
        op.add_column(table, sa.Column("segment_start", sa.BigInteger()))
        op.add_column(table, sa.Column("segment_bytes", sa.Integer()))
        op.add_column(table, sa.Column("segment_crc32", sa.BigInteger()))
    op.add_column("inbox", sa.Column("segment_id", sa.LargeBinary(16)))
    op.add_column("inbox", sa.Column("segment_places", sa.LargeBinary()))
    is_outside = sa.text("segment_id IS NOT NULL")
    for table, columns in (*((name, ["segment_id", "segment_bytes"]) for name in _STORED), ("inbox", ["segment_id"])):
        op.create_index(f"ix_{table}_segment", table, columns, sqlite_where=is_outside, postgresql_where=is_outside)
    op.create_table(
        "dirty_segments",
        sa.Column("segment_id", sa.LargeBinary(16), nullable=False),
        sa.PrimaryKeyConstraint("segment_id", name=op.f("pk_dirty_segments")),
    )
    op.create_table(
        "segment_folder",
        sa.Column("name", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_segment_folder")),
    )


def downgrade() -> None:
    """Remove the columns; refuse while a row has its value in a segment."""
    for table in (*_STORED, "inbox"):
        query = sa.text(f"SELECT count(*) FROM {table} WHERE segment_id IS NOT NULL")
        if outside := op.get_bind().execute(query).scalar_one():
            raise RuntimeError(f"{outside} rows of {table} lie in segments: restore a backup of the older version")
    op.drop_table("segment_folder")
    op.drop_table("dirty_segments")
    for table in (*_STORED, "inbox"):
        op.drop_index(f"ix_{table}_segment", table)
    for table in _STORED:
        for name in ("segment_id", "segment_start", "segment_bytes", "segment_crc32"):
            op.drop_column(table, name)
    op.drop_column("inbox", "segment_places")
    op.drop_column("inbox", "segment_id")

"""Inbox of accepted requests.

Revision ID: 0021
Revises: 0020
"""

import sqlalchemy as sa
from alembic import op

from cloud.store.verdict_columns import Number

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; it is empty.

    PostgreSQL would try to compress each request, which takes longer than all the rest.
    """
    op.create_table(
        "inbox",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("first_sample_id", sa.LargeBinary(16), nullable=False),
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("received_at_s", sa.Double(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("decoded_bytes", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("traced", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.device_id"], name=op.f("fk_inbox_device_id_devices")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_inbox")),
        sa.UniqueConstraint("first_sample_id", name=op.f("uq_inbox_first_sample_id")),
        sqlite_autoincrement=True,
    )
    columns = ["device_id", "number", "samples", "decoded_bytes", "received_at_s"]
    op.create_index("ix_inbox_queue", "inbox", columns)
    if op.get_bind().dialect.name == "postgresql":
        for table in ("inbox", "payloads"):
            op.execute(f"ALTER TABLE {table} ALTER COLUMN data SET STORAGE EXTERNAL")


def downgrade() -> None:
    """Remove the table, which must be empty: its samples would be lost."""
    waiting = op.get_bind().execute(sa.text("SELECT count(*) FROM inbox")).scalar_one()
    if waiting:
        raise RuntimeError(f"{waiting} requests wait in the inbox: let the service judge them first")
    op.drop_table("inbox")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE payloads ALTER COLUMN data SET STORAGE EXTENDED")

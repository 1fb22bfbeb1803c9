"""Notices and their outbox.

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

from cloud.store.verdict_columns import Number

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables; the first check opens a notice for each present problem."""
    op.create_table(
        "notices",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("notice_id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(256), nullable=False),
        sa.Column("text", sa.String(1000), nullable=False),
        sa.Column("opened_at_s", sa.Double(), nullable=False),
        sa.Column("closed_at_s", sa.Double()),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_notices")),
        sa.UniqueConstraint("notice_id", name=op.f("uq_notices_notice_id")),
        sqlite_autoincrement=True,
    )
    is_open = sa.text("closed_at_s IS NULL")
    op.create_index(
        "uq_notices_open",
        "notices",
        ["kind", "subject"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_table(
        "deliveries",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("delivery_id", sa.String(36), nullable=False),
        sa.Column("sink", sa.String(64), nullable=False),
        sa.Column("message", sa.JSON(), nullable=False),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.Column("next_try_at_s", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(400), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_deliveries")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_deliveries_sink_next_try_at_s", "deliveries", ["sink", "next_try_at_s", "number"])
    op.create_table(
        "verdict_feeds",
        sa.Column("sink", sa.String(64), nullable=False),
        sa.Column("judged_at_s", sa.Double(), nullable=False),
        sa.Column("number", Number, nullable=False),
        sa.PrimaryKeyConstraint("sink", name=op.f("pk_verdict_feeds")),
    )
    op.add_column("heartbeats", sa.Column("disk_free_bytes", sa.BigInteger()))


def downgrade() -> None:
    """Remove them with the messages that wait."""
    op.drop_column("heartbeats", "disk_free_bytes")
    for name in ("verdict_feeds", "deliveries", "notices"):
        op.drop_table(name)

"""History of heartbeats, health and names of devices.

Revision ID: 0026
Revises: 0023
"""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0023"
branch_labels = None
depends_on = None

INTEGERS = (
    "samples_screened",
    "samples_forwarded",
    "samples_audited",
    "samples_alarmed",
    "samples_rejected",
    "samples_dropped",
    "bytes_screened",
    "bytes_uploaded",
    "spool_samples",
    "spool_bytes",
)


def upgrade() -> None:
    """Add the table and the columns; the next heartbeat of a device fills them."""
    op.create_table(
        "heartbeat_history",
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("slot", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("received_at_s", sa.Double(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in INTEGERS),
        sa.Column("health", sa.String(16), nullable=False),
        sa.Column("is_drifting", sa.Boolean(), nullable=False),
        sa.Column("certificate_expires_at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("device_id", "slot", name=op.f("pk_heartbeat_history")),
    )
    op.create_index("ix_heartbeat_history_slot", "heartbeat_history", ["slot"])
    op.add_column("heartbeats", sa.Column("health", sa.String(16), nullable=False, server_default=""))
    op.add_column("devices", sa.Column("title", sa.String(80), nullable=False, server_default=""))


def downgrade() -> None:
    """Remove the table and the columns."""
    op.drop_column("devices", "title")
    op.drop_column("heartbeats", "health")
    op.drop_table("heartbeat_history")

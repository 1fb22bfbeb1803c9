"""Offset of each device's clock, measured at its heartbeats.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the offset in seconds; it is unknown until the next heartbeat."""
    op.add_column("heartbeats", sa.Column("clock_offset_s", sa.Double(), nullable=True))


def downgrade() -> None:
    """Remove the offset."""
    op.drop_column("heartbeats", "clock_offset_s")

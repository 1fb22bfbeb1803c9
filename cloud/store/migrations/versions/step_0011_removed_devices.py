"""Removal of devices with their data.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table and the column; no device is removed."""
    op.create_table(
        "device_removals",
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("keep_verdicts", sa.Boolean(), nullable=False),
        sa.Column("requested_at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_device_removals")),
    )
    op.add_column("devices", sa.Column("removed_at_s", sa.Double()))


def downgrade() -> None:
    """Remove them: removed devices with kept verdicts are listed as revoked."""
    op.drop_column("devices", "removed_at_s")
    op.drop_table("device_removals")

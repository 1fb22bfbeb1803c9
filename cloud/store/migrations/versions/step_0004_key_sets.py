"""Key sets, and the set in force on each device.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of key sets; the set of a device is unknown until its next heartbeat."""
    op.create_table(
        "key_sets",
        sa.Column("serial", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("stored_at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_key_sets")),
    )
    op.add_column("heartbeats", sa.Column("key_set_sha256", sa.String(64), nullable=False, server_default=""))


def downgrade() -> None:
    """Remove the key sets: only the key that the settings name is trusted then."""
    op.drop_column("heartbeats", "key_set_sha256")
    op.drop_table("key_sets")

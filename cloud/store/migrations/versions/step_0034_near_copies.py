"""Numbers of near copies that stayed on devices.

Revision ID: 0034
Revises: 0030
"""

import sqlalchemy as sa
from alembic import op

from cloud.store.verdict_columns import Number

revision = "0034"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; it is empty."""
    op.create_table(
        "near_copies",
        sa.Column("number", Number, autoincrement=False, nullable=False),
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("copies", sa.BigInteger(), nullable=False),
        sa.Column("last_at_s", sa.Double(), nullable=False),
        sa.Column("received_at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_near_copies")),
    )
    op.create_index("ix_near_copies_device_id", "near_copies", ["device_id"])
    op.create_index("ix_near_copies_received_at_s", "near_copies", ["received_at_s"])


def downgrade() -> None:
    """Remove the table, with all counts."""
    op.drop_table("near_copies")

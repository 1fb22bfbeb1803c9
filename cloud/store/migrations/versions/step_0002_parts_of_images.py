"""Images of which only a part travelled.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Which part of its image a payload is."""
    op.add_column("payloads", sa.Column("part", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    """Parts become whole images, wrongly: their payloads go first."""
    op.execute("DELETE FROM payloads WHERE part IS NOT NULL")
    op.drop_column("payloads", "part")

"""Renewed certificates that their devices have not used yet.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; no certificate is offered yet."""
    op.add_column("devices", sa.Column("next_certificate_serial", sa.String(64)))
    op.add_column("devices", sa.Column("next_certificate_expires_at_s", sa.Double()))


def downgrade() -> None:
    """Remove them: devices keep their present certificates."""
    op.drop_column("devices", "next_certificate_expires_at_s")
    op.drop_column("devices", "next_certificate_serial")

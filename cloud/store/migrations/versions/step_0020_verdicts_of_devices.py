"""Verdicts of each device of a rollout.

Revision ID: 0020
Revises: 0019
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; a rollout under way counts the verdicts of its devices from now on."""
    op.add_column("rollout_devices", sa.Column("tally", sa.JSON(none_as_null=True)))


def downgrade() -> None:
    """Remove it."""
    op.drop_column("rollout_devices", "tally")

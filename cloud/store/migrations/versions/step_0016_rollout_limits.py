"""Limits of the gates of each rollout.

Revision ID: 0016
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; earlier rollouts have the default limits."""
    op.add_column("staged_rollouts", sa.Column("limits", sa.JSON(none_as_null=True)))


def downgrade() -> None:
    """Remove it: a rollout that is under way gets the default limits."""
    op.drop_column("staged_rollouts", "limits")

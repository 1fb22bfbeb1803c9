"""Settings of groups, and those in force on each device.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table and the columns; no group has settings yet."""
    op.create_table(
        "group_settings",
        sa.Column("group_name", sa.String(64), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("changed_at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("group_name", name=op.f("pk_group_settings")),
    )
    op.add_column("heartbeats", sa.Column("settings", sa.JSON(none_as_null=True)))
    op.add_column("heartbeats", sa.Column("settings_refusal", sa.String(400), nullable=False, server_default=""))


def downgrade() -> None:
    """Remove them: devices keep the settings that they have."""
    op.drop_column("heartbeats", "settings_refusal")
    op.drop_column("heartbeats", "settings")
    op.drop_table("group_settings")

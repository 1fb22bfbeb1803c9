"""Sites and groups of devices, and the groups that a bundle name is released to.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Put every device into the site and group `default`; every name stays released to all groups."""
    for name in ("site", "group_name"):
        op.add_column("devices", sa.Column(name, sa.String(64), nullable=False, server_default="default"))
        op.add_column("tokens", sa.Column(name, sa.String(64)))
    op.create_table(
        "bundle_groups",
        sa.Column("bundle_name", sa.String(64), nullable=False),
        sa.Column("group_name", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("bundle_name", "group_name", name=op.f("pk_bundle_groups")),
    )


def downgrade() -> None:
    """Remove sites and groups: every device gets the bundles of every name."""
    op.drop_table("bundle_groups")
    for name in ("site", "group_name"):
        op.drop_column("tokens", name)
        op.drop_column("devices", name)

"""Links that show one verdict without an account.

Revision ID: 0025
Revises: 0024
"""

import sqlalchemy as sa
from alembic import op

from cloud.store.verdict_columns import Number

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; it is empty."""
    op.create_table(
        "share_links",
        sa.Column("share_id", sa.String(16), nullable=False),
        sa.Column("secret_sha256", sa.String(64), nullable=False),
        sa.Column("sample_number", Number, nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.Column("expires_at_s", sa.Double(), nullable=False),
        sa.Column("revoked_at_s", sa.Double()),
        sa.Column("opened", sa.Integer(), server_default="0", nullable=False),
        sa.Column("opened_at_s", sa.Double()),
        sa.ForeignKeyConstraint(
            ["sample_number"], ["samples.number"], name=op.f("fk_share_links_sample_number_samples"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("share_id", name=op.f("pk_share_links")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_share_links_secret_sha256")),
    )
    op.create_index("ix_share_links_sample_number", "share_links", ["sample_number"])


def downgrade() -> None:
    """Remove the table, with all links."""
    op.drop_table("share_links")

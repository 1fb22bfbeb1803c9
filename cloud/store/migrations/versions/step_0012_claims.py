"""Claims of analysis processes on waiting samples.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

from cloud.store.verdict_columns import Number

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; no sample is claimed."""
    op.create_table(
        "claims",
        sa.Column("number", Number, autoincrement=False, nullable=False),
        sa.Column("claimant", sa.String(36), nullable=False),
        sa.Column("until_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["number"], ["samples.number"], name=op.f("fk_claims_number_samples"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_claims")),
    )


def downgrade() -> None:
    """Remove the claims: the samples wait again."""
    op.drop_table("claims")

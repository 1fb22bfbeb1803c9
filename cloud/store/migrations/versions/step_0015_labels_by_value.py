"""Index of labels by their value, for lists of labelled verdicts.

Revision ID: 0015
Revises: 0014
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_labels_label_sample_number", "labels", ["label", "sample_number"])


def downgrade() -> None:
    """Remove it."""
    op.drop_index("ix_labels_label_sample_number", "labels")

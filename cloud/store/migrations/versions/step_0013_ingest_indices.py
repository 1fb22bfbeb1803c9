"""Fewer indices of samples that wait: an insert touches the keys and the queue only.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Index the origins of judged samples only; drop an index that no query uses."""
    op.drop_index("ix_samples_device_id_received_at_s", "samples")
    op.drop_index("ix_samples_origin", "samples")
    op.create_index(
        "ix_samples_origin",
        "samples",
        [sa.text("lower(origin)")],
        sqlite_where=sa.text("judged = 1"),
        postgresql_where=sa.text("judged"),
    )


def downgrade() -> None:
    """Index the origins of all samples, and the times of arrival by device."""
    op.drop_index("ix_samples_origin", "samples")
    op.create_index("ix_samples_origin", "samples", [sa.text("lower(origin)")])
    op.create_index("ix_samples_device_id_received_at_s", "samples", ["device_id", "received_at_s", "number"])

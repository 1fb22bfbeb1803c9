"""Training jobs.

Revision ID: 0030
Revises: 0028
"""

import sqlalchemy as sa
from alembic import op

from cloud.store.verdict_columns import Number

revision = "0030"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; it is empty."""
    op.create_table(
        "training_jobs",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.Column("sites", sa.JSON(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("claimant", sa.String(64)),
        sa.Column("claim_until_s", sa.Double()),
        sa.Column("started_at_s", sa.Double()),
        sa.Column("ended_at_s", sa.Double()),
        sa.Column("stage", sa.String(64), server_default="", nullable=False),
        sa.Column("share", sa.Double(), server_default="0", nullable=False),
        sa.Column("remaining_s", sa.Double()),
        sa.Column("log", sa.JSON(), nullable=False),
        sa.Column("reason", sa.String(1024), server_default="", nullable=False),
        sa.Column("result", sa.JSON()),
        sa.Column("published", sa.JSON()),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_training_jobs")),
        sa.UniqueConstraint("job_id", name=op.f("uq_training_jobs_job_id")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_training_jobs_state", "training_jobs", ["state", "number"])


def downgrade() -> None:
    """Remove the table, with all jobs."""
    op.drop_table("training_jobs")

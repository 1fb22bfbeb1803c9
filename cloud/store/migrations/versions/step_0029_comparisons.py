"""Devices of each stage of a rollout, and comparisons of two bundles on stored samples.

Revision ID: 0029
Revises: 0026
"""

import sqlalchemy as sa
from alembic import op

from cloud.store.verdict_columns import Number

revision = "0029"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and the tables; the next check of a rollout fills the column."""
    op.add_column("staged_rollouts", sa.Column("devices", sa.JSON(none_as_null=True)))
    op.create_table(
        "comparisons",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("bundle_name", sa.String(64), nullable=False),
        sa.Column("first_bundle_id", sa.String(128), nullable=False),
        sa.Column("second_bundle_id", sa.String(128), nullable=False),
        sa.Column("asked", sa.JSON(), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.Column("started_at_s", sa.Double()),
        sa.Column("ended_at_s", sa.Double()),
        sa.Column("runner", sa.String(36), nullable=False),
        sa.Column("runner_until_s", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("samples", sa.Integer()),
        sa.Column("judged", sa.Integer(), nullable=False),
        sa.Column("judging_s", sa.Double(), nullable=False),
        sa.Column("waits_for_live", sa.Boolean(), nullable=False),
        sa.Column("false_alarm_rate", sa.Double()),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_comparisons")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "comparison_samples",
        sa.Column("comparison", Number, autoincrement=False, nullable=False),
        sa.Column("sample_number", Number, autoincrement=False, nullable=False),
        sa.Column("label", sa.String(16), nullable=False),
        sa.Column("judged", sa.Boolean(), nullable=False),
        *(
            sa.Column(f"{side}_{name}", kind)
            for side in ("first", "second")
            for name, kind in (("p_value", sa.Double()), ("decision", sa.String(16)), ("latency_ms", sa.Double()))
        ),
        sa.ForeignKeyConstraint(
            ["comparison"],
            ["comparisons.number"],
            name=op.f("fk_comparison_samples_comparison_comparisons"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("comparison", "sample_number", name=op.f("pk_comparison_samples")),
    )


def downgrade() -> None:
    """Remove the column and the tables."""
    op.drop_table("comparison_samples")
    op.drop_table("comparisons")
    op.drop_column("staged_rollouts", "devices")

"""Rollouts of bundles in stages.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

from cloud.store.verdict_columns import Number

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables; every current bundle stays current."""
    op.create_table(
        "staged_rollouts",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("bundle_name", sa.String(64), nullable=False),
        sa.Column("bundle_id", sa.String(128), nullable=False),
        sa.Column("before_bundle_id", sa.String(128), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("stages", sa.JSON(), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("started_at_s", sa.Double(), nullable=False),
        sa.Column("stage_started_at_s", sa.Double(), nullable=False),
        sa.Column("stage_started_samples", sa.Double(), nullable=False),
        sa.Column("ended_at_s", sa.Double()),
        sa.Column("gates", sa.JSON(), nullable=False),
        sa.Column("tallies", sa.JSON(), nullable=False),
        sa.Column("counted_judged_at_s", sa.Double(), nullable=False),
        sa.Column("counted_number", Number, nullable=False),
        *(
            sa.ForeignKeyConstraint([name], ["bundles.bundle_id"], name=op.f(f"fk_staged_rollouts_{name}_bundles"))
            for name in ("bundle_id", "before_bundle_id")
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_staged_rollouts")),
        sqlite_autoincrement=True,
    )
    active = sa.text("ended_at_s IS NULL")
    op.create_index(
        "uq_staged_rollouts_active",
        "staged_rollouts",
        ["bundle_name"],
        unique=True,
        sqlite_where=active,
        postgresql_where=active,
    )
    op.create_index("ix_staged_rollouts_bundle_name_number", "staged_rollouts", ["bundle_name", "number"])
    to_rollout = (["rollout"], ["staged_rollouts.number"])
    op.create_table(
        "rollout_devices",
        sa.Column("rollout", Number, autoincrement=False, nullable=False),
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("first", sa.JSON(), nullable=False),
        sa.Column("wanted_at_s", sa.Double()),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("swapped", sa.JSON()),
        sa.ForeignKeyConstraint(*to_rollout, name=op.f("fk_rollout_devices_rollout_staged_rollouts")),
        sa.PrimaryKeyConstraint("rollout", "device_id", name=op.f("pk_rollout_devices")),
    )
    op.create_table(
        "rollout_history",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("rollout", Number, nullable=False),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("author", sa.String(128), nullable=False),
        sa.Column("reason", sa.String(1024), nullable=False),
        sa.ForeignKeyConstraint(*to_rollout, name=op.f("fk_rollout_history_rollout_staged_rollouts")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_rollout_history")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_rollout_history_rollout_number", "rollout_history", ["rollout", "number"])


def downgrade() -> None:
    """Remove the tables: devices of a rollout that is under way return to the current bundle."""
    for name in ("rollout_history", "rollout_devices", "staged_rollouts"):
        op.drop_table(name)

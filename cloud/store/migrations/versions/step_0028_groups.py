"""Named groups, history of their settings, moves of devices, and histograms of p-values.

Revision ID: 0028
Revises: 0027
"""

import sqlalchemy as sa
from alembic import op

from cloud.store.verdict_columns import Number

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables; the service counts the verdicts of the last weeks when it starts."""
    op.create_table(
        "device_groups",
        sa.Column("group_name", sa.String(64), nullable=False),
        sa.Column("made_at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("group_name", name=op.f("pk_device_groups")),
    )
    op.create_table(
        "group_changes",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("group_name", sa.String(64), nullable=False),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.Column("after", sa.JSON(), nullable=False),
        sa.Column("forecast", sa.JSON(none_as_null=True)),
        sa.Column("outcome", sa.JSON(none_as_null=True)),
        sa.Column("undoes", Number),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_group_changes")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_group_changes_group_name_number", "group_changes", ["group_name", "number"])
    op.create_table(
        "device_moves",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("site", sa.String(64)),
        sa.Column("group_name", sa.String(64)),
        sa.Column("devices", sa.JSON(), nullable=False),
        sa.Column("undone_at_s", sa.Double()),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_device_moves")),
        sqlite_autoincrement=True,
    )
    _add_replay()


def _add_replay() -> None:
    op.create_table(
        "replay_progress",
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("judged_at_s", sa.Double(), nullable=False),
        sa.Column("number", Number, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_replay_progress")),
    )
    op.create_table(
        "replay_days",
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("source_id", sa.String(512), nullable=False),
        sa.Column("cells", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("device_id", "day", "source_id", name=op.f("pk_replay_days")),
    )
    op.create_table(
        "replay_budgets",
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cells", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("device_id", "day", name=op.f("pk_replay_budgets")),
    )
    op.create_table(
        "replay_buckets",
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.Column("levels", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_replay_buckets")),
    )


def downgrade() -> None:
    """Remove the tables. The settings of groups stay."""
    for name in ("buckets", "budgets", "days", "progress"):
        op.drop_table(f"replay_{name}")
    for name in ("device_moves", "group_changes", "device_groups"):
        op.drop_table(name)

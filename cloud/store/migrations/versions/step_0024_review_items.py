"""Review items, decisions on them, reviewed marks and saved views.

Revision ID: 0024
Revises: 0022
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from cloud.store.verdict_columns import Number

revision = "0024"
down_revision = "0022"
branch_labels = None
depends_on = None

_ITEM = "review_items.number"
_OPEN: Any = {"sqlite_where": sa.text("decision IS NULL"), "postgresql_where": sa.text("decision IS NULL")}


def upgrade() -> None:
    """Add the tables; the service builds the items of all stored verdicts when it starts."""
    _add_items()
    _add_decisions()
    op.create_table(
        "review_marks",
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("item", Number, nullable=False),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["item"], [_ITEM], name="fk_review_marks_item_review_items", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("actor", "item", name="pk_review_marks"),
    )
    op.create_index("ix_review_marks_item", "review_marks", ["item"])
    op.create_table(
        "review_views",
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("query", sa.String(1000), nullable=False),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("actor", "name", name="pk_review_views"),
    )


def _add_items() -> None:
    op.create_table(
        "review_progress",
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("judged_at_s", sa.Double(), nullable=False),
        sa.Column("number", Number, nullable=False),
        sa.Column("last_item", Number, nullable=False),
        sa.Column("version", Number, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_review_progress"),
    )
    op.create_table(
        "review_items",
        sa.Column("number", Number, autoincrement=False, nullable=False),
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("source_id", sa.String(512), nullable=False),
        sa.Column("modality", sa.String(16), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        *(
            sa.Column(name, sa.Double(), nullable=False)
            for name in ("first_at_s", "last_at_s", "judged_at_s", "last_judged_at_s")
        ),
        sa.Column("verdicts", sa.Integer(), nullable=False),
        sa.Column("p_value", sa.Double(), nullable=False),
        sa.Column("cover", Number, nullable=False),
        sa.Column("origin", sa.String(512), nullable=False),
        sa.Column("place_row", sa.Double()),
        sa.Column("place_column", sa.Double()),
        sa.Column("decision", sa.String(16)),
        sa.Column("decision_number", Number, nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.device_id"], name="fk_review_items_device_id_devices"),
        sa.PrimaryKeyConstraint("number", name="pk_review_items"),
    )
    op.create_index("ix_review_items_source", "review_items", ["device_id", "source_id", "last_at_s"])
    op.create_index("ix_review_items_severity", "review_items", ["severity", "number"])
    op.create_index("ix_review_items_odd", "review_items", ["severity", "p_value", "number"])
    op.create_index("ix_review_items_open", "review_items", ["severity", "number"], **_OPEN)
    op.create_index("ix_review_items_open_odd", "review_items", ["severity", "p_value", "number"], **_OPEN)
    op.create_index("ix_review_items_open_device", "review_items", ["device_id", "severity", "number"], **_OPEN)
    op.create_index("ix_review_items_first_at_s", "review_items", ["first_at_s", "severity", "device_id"])
    op.create_index("ix_review_items_last_judged_at_s", "review_items", ["last_judged_at_s", "number"])
    op.create_table(
        "review_members",
        sa.Column("number", Number, autoincrement=False, nullable=False),
        sa.Column("item", Number, nullable=False),
        sa.ForeignKeyConstraint(["item"], [_ITEM], name="fk_review_members_item_review_items", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("number", name="pk_review_members"),
    )
    op.create_index("ix_review_members_item_number", "review_members", ["item", "number"])


def _add_decisions() -> None:
    op.create_table(
        "review_decisions",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("item", Number, nullable=False),
        sa.Column("decision", sa.String(16)),
        sa.Column("note", sa.String(2000), nullable=False),
        sa.Column("author", sa.String(128), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.Column("client_key", sa.String(128)),
        sa.Column("before", Number, nullable=False),
        sa.Column("undoes", Number),
        sa.Column("labels_after", Number, nullable=False),
        sa.Column("labels_upto", Number, nullable=False),
        sa.ForeignKeyConstraint(["item"], [_ITEM], name="fk_review_decisions_item_review_items", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("number", name="pk_review_decisions"),
        sa.UniqueConstraint("actor", "client_key", "item", name="uq_review_decisions_actor_client_key_item"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_review_decisions_item_number", "review_decisions", ["item", "number"])


def downgrade() -> None:
    """Remove the tables. The labels that decisions wrote stay."""
    for name in ("views", "marks", "decisions", "members", "items", "progress"):
        op.drop_table(f"review_{name}")

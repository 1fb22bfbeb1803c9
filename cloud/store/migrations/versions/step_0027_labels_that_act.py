"""Defect classes, reported misses, signatures of review items, and mutes.

Revision ID: 0027
Revises: 0029
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from cloud.store.verdict_columns import Number

revision = "0027"
down_revision = "0029"
branch_labels = None
depends_on = None

_CLASSED = ("labels", "review_decisions", "review_items")
_OPEN_INDICES = {
    "ix_review_items_open": ["severity", "number"],
    "ix_review_items_open_odd": ["severity", "p_value", "number"],
    "ix_review_items_open_device": ["device_id", "severity", "number"],
}


def upgrade() -> None:
    """Add the tables and the columns. Items that were built before have no signature: no preview compares them."""
    for table in _CLASSED:
        op.add_column(table, sa.Column("defect_class", Number))
    for name in ("muted_by", "hidden_by"):
        op.add_column("review_items", sa.Column(name, Number))
    _replace_open_indices("decision IS NULL AND hidden_by IS NULL")
    op.create_index(
        "ix_review_items_muted", "review_items", ["muted_by", "judged_at_s"], **_where("muted_by IS NOT NULL")
    )
    op.create_index("ix_review_items_hidden", "review_items", ["number"], **_where("hidden_by IS NOT NULL"))
    op.create_table(
        "review_signatures",
        sa.Column("item", Number, nullable=False),
        sa.Column("bundle_name", sa.String(128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("vector", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["item"], ["review_items.number"], name="fk_review_signatures_item_review_items", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("item", name="pk_review_signatures"),
    )
    op.create_table(
        "defect_classes",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("added_by", sa.String(128), nullable=False),
        sa.Column("added_at_s", sa.Double(), nullable=False),
        sa.Column("merged_into", Number),
        sa.Column("removed_at_s", sa.Double()),
        sa.PrimaryKeyConstraint("number", name="pk_defect_classes"),
        sqlite_autoincrement=True,
    )
    _add_missed_reports()
    _add_mutes()


def _add_missed_reports() -> None:
    op.create_table(
        "missed_reports",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("source_id", sa.String(512), nullable=False),
        sa.Column("sample_number", Number),
        sa.Column("begin_s", sa.Double(), nullable=False),
        sa.Column("end_s", sa.Double(), nullable=False),
        sa.Column("defect_class", Number),
        *_authored(),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.Column("client_key", sa.String(128)),
        sa.Column("withdrawn_at_s", sa.Double()),
        sa.Column("withdrawn_by", sa.String(128), nullable=False, server_default=""),
        sa.ForeignKeyConstraint(["device_id"], ["devices.device_id"], name="fk_missed_reports_device_id_devices"),
        sa.PrimaryKeyConstraint("number", name="pk_missed_reports"),
        sa.UniqueConstraint("actor", "client_key", name="uq_missed_reports_actor_client_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_missed_reports_device_id", "missed_reports", ["device_id", "number"])


def _add_mutes() -> None:
    op.create_table(
        "mutes",
        sa.Column("number", Number, autoincrement=True, nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("source_id", sa.String(512), nullable=False),
        sa.Column("bundle_name", sa.String(128), nullable=False),
        sa.Column("modality", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("vector", sa.JSON(), nullable=False),
        sa.Column("likeness", sa.Double(), nullable=False),
        sa.Column("p_value", sa.Double(), nullable=False),
        sa.Column("item", Number, nullable=False),
        *_authored(),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.Column("expires_at_s", sa.Double(), nullable=False),
        sa.Column("ended_at_s", sa.Double()),
        sa.Column("ended_by", sa.String(128), nullable=False, server_default=""),
        sa.Column("client_key", sa.String(128)),
        *(sa.Column(name, Number, nullable=False, server_default="0") for name in ("hidden_items", "hidden_verdicts")),
        sa.PrimaryKeyConstraint("number", name="pk_mutes"),
        sa.UniqueConstraint("actor", "client_key", name="uq_mutes_actor_client_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_mutes_expires_at_s", "mutes", ["expires_at_s"])


def _authored() -> list[sa.Column[Any]]:
    lengths = {"note": 2000, "author": 128, "actor": 128}
    return [sa.Column(name, sa.String(length), nullable=False) for name, length in lengths.items()]


def _replace_open_indices(condition: str) -> None:
    for name, columns in _OPEN_INDICES.items():
        op.drop_index(name, "review_items")
        op.create_index(name, "review_items", columns, **_where(condition))


def _where(condition: str) -> Any:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def downgrade() -> None:
    """Remove the tables and the columns; the labels stay, without their classes."""
    for name in ("mutes", "missed_reports", "defect_classes", "review_signatures"):
        op.drop_table(name)
    for name in ("ix_review_items_hidden", "ix_review_items_muted"):
        op.drop_index(name, "review_items")
    _replace_open_indices("decision IS NULL")
    for name in ("hidden_by", "muted_by"):
        op.drop_column("review_items", name)
    for table in _CLASSED:
        op.drop_column(table, "defect_class")

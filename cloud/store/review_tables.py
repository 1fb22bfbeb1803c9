"""Tables of review items, decisions on them, signatures, reviewed marks and saved views; part of cloud.store.schema.

Members have no foreign key to their verdicts: retention deletes verdicts in bulk, and their items follow
(cloud.store.review.removal).
"""

from typing import Any

from sqlalchemy import JSON, Column, Double, ForeignKey, Index, Integer, String, Table, UniqueConstraint, text

from cloud.store.metadata import metadata
from cloud.store.verdict_columns import Number


def _where(condition: str) -> Any:
    """Return the options of an index over the rows with this condition."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


_OPEN = _where("decision IS NULL AND hidden_by IS NULL")

review_progress = Table(  # one row: place of the builder in the verdicts, and a number that grows with each change
    "review_progress",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("judged_at_s", Double, nullable=False),
    Column("number", Number, nullable=False),
    Column("last_item", Number, nullable=False),
    Column("version", Number, nullable=False),
)

review_items = Table(  # verdicts of one source that ask for a person, grouped in time: see cloud.store.review
    "review_items",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=False),  # in the order of their first verdicts
    Column("device_id", String(64), ForeignKey("devices.device_id"), nullable=False),
    Column("source_id", String(512), nullable=False),
    Column("modality", String(16), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("first_at_s", Double, nullable=False),  # of the captures
    Column("last_at_s", Double, nullable=False),
    Column("judged_at_s", Double, nullable=False),  # of the first verdict
    Column("last_judged_at_s", Double, nullable=False),
    Column("verdicts", Integer, nullable=False),
    Column("p_value", Double, nullable=False),  # lowest of the verdicts
    Column("cover", Number, nullable=False),  # number of the oddest sample
    Column("origin", String(512), nullable=False),  # of that sample: a search reads no other table
    Column("place_row", Double),  # of the largest value in the newest map of an image, in [0, 1]
    Column("place_column", Double),
    Column("decision", String(16)),  # newest one; NULL: none
    Column("decision_number", Number, nullable=False),  # of the newest row in review_decisions; 0: none
    Column("defect_class", Number),  # of the newest decision, in defect_classes
    Column("muted_by", Number),  # number of the mute that hid it first; it stays when the mute is ended
    Column("hidden_by", Number),  # the same number while the item is hidden
    Index("ix_review_items_source", "device_id", "source_id", "last_at_s"),
    Index("ix_review_items_severity", "severity", "number"),
    Index("ix_review_items_odd", "severity", "p_value", "number"),
    Index("ix_review_items_open", "severity", "number", **_OPEN),
    Index("ix_review_items_open_odd", "severity", "p_value", "number", **_OPEN),
    Index("ix_review_items_open_device", "device_id", "severity", "number", **_OPEN),
    Index("ix_review_items_first_at_s", "first_at_s", "severity", "device_id"),
    Index("ix_review_items_last_judged_at_s", "last_judged_at_s", "number"),
    Index("ix_review_items_muted", "muted_by", "judged_at_s", **_where("muted_by IS NOT NULL")),
    Index("ix_review_items_hidden", "number", **_where("hidden_by IS NOT NULL")),
)

review_members = Table(  # item of each verdict that has one
    "review_members",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=False),
    Column("item", Number, ForeignKey("review_items.number", ondelete="CASCADE"), nullable=False),
    Index("ix_review_members_item_number", "item", "number"),
)

review_signatures = Table(  # of the oddest verdict of each item, to compare it with a pattern without its map
    "review_signatures",
    metadata,
    Column("item", Number, ForeignKey("review_items.number", ondelete="CASCADE"), primary_key=True),
    Column("bundle_name", String(128), nullable=False),
    Column("version", Integer, nullable=False),  # of the signature's making: see cloud.store.review.signature
    Column("vector", JSON, nullable=False),
)

review_decisions = Table(  # rows are only added; the newest of an item counts
    "review_decisions",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("item", Number, ForeignKey("review_items.number", ondelete="CASCADE"), nullable=False),
    Column("decision", String(16)),  # NULL: none, after an undo
    Column("note", String(2000), nullable=False),
    Column("author", String(128), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("at_s", Double, nullable=False),
    Column("client_key", String(128)),
    Column("before", Number, nullable=False),  # the decision that it followed; 0: none
    Column("undoes", Number),
    Column("defect_class", Number),
    Column("labels_after", Number, nullable=False),  # its labels have numbers above this one
    Column("labels_upto", Number, nullable=False),  # and at most this one
    UniqueConstraint("actor", "client_key", "item"),
    Index("ix_review_decisions_item_number", "item", "number"),
    sqlite_autoincrement=True,
)

review_marks = Table(  # items that a person has marked as reviewed
    "review_marks",
    metadata,
    Column("actor", String(128), primary_key=True),
    Column("item", Number, ForeignKey("review_items.number", ondelete="CASCADE"), primary_key=True),
    Column("at_s", Double, nullable=False),
    Index("ix_review_marks_item", "item"),
)

review_views = Table(  # named filters of a person
    "review_views",
    metadata,
    Column("actor", String(128), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("query", String(1000), nullable=False),
    Column("at_s", Double, nullable=False),
)

"""Tables of notices, and of the messages that sinks get; part of cloud.store.schema."""

from sqlalchemy import JSON, Column, Double, Index, Integer, String, Table, text

from cloud.store.metadata import metadata
from cloud.store.verdict_columns import Number

notices = Table(  # messages to people; of each kind and subject at most one is open
    "notices",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("notice_id", String(36), nullable=False, unique=True),
    Column("kind", String(32), nullable=False),
    Column("subject", String(256), nullable=False),
    Column("text", String(1000), nullable=False),
    Column("opened_at_s", Double, nullable=False),
    Column("closed_at_s", Double),  # NULL while it is open
    Index(
        "uq_notices_open",
        "kind",
        "subject",
        unique=True,
        sqlite_where=text("closed_at_s IS NULL"),
        postgresql_where=text("closed_at_s IS NULL"),
    ),
    sqlite_autoincrement=True,
)

deliveries = Table(  # outbox: messages that a sink has not taken yet
    "deliveries",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("delivery_id", String(36), nullable=False),
    Column("sink", String(64), nullable=False),
    Column("message", JSON, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("next_try_at_s", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", String(400), nullable=False),
    Index("ix_deliveries_sink_next_try_at_s", "sink", "next_try_at_s", "number"),
    sqlite_autoincrement=True,
)

verdict_feeds = Table(  # key of the last verdict that a sink's outbox has
    "verdict_feeds",
    metadata,
    Column("sink", String(64), primary_key=True),
    Column("judged_at_s", Double, nullable=False),
    Column("number", Number, nullable=False),
)

webhooks = Table(  # of verdicts, made through the HTTP API
    "webhooks",
    metadata,
    Column("webhook_id", String(16), primary_key=True),
    Column("url", String(2000), nullable=False),
    Column("secret", String(64), nullable=False),  # signs the messages, so it is stored as it is
    Column("decisions", JSON, nullable=False),
    Column("sites", JSON, nullable=False),  # none: all
    Column("groups", JSON, nullable=False),  # none: all
    Column("created_at_s", Double, nullable=False),
)

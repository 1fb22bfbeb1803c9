"""Tables of defect classes, reported misses and mutes; part of cloud.store.schema.

Labels, decisions and items name a class by its number and keep it: a merged or removed class stays as a row.
"""

from sqlalchemy import JSON, Column, Double, ForeignKey, Index, Integer, String, Table, UniqueConstraint

from cloud.store.metadata import metadata
from cloud.store.verdict_columns import Number

defect_classes = Table(
    "defect_classes",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("name", String(64), nullable=False),
    Column("added_by", String(128), nullable=False),
    Column("added_at_s", Double, nullable=False),
    Column("merged_into", Number),  # a class that is not merged itself
    Column("removed_at_s", Double),
    sqlite_autoincrement=True,
)

missed_reports = Table(  # anomalies that people report as missed, of a stored sample or of a time span of a source
    "missed_reports",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("device_id", String(64), ForeignKey("devices.device_id"), nullable=False),
    Column("source_id", String(512), nullable=False),
    Column("sample_number", Number),  # NULL: nothing was sent
    Column("begin_s", Double, nullable=False),
    Column("end_s", Double, nullable=False),
    Column("defect_class", Number),
    Column("note", String(2000), nullable=False),
    Column("author", String(128), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("at_s", Double, nullable=False),
    Column("client_key", String(128)),
    Column("withdrawn_at_s", Double),
    Column("withdrawn_by", String(128), nullable=False, server_default=""),
    UniqueConstraint("actor", "client_key"),
    Index("ix_missed_reports_device_id", "device_id", "number"),
    sqlite_autoincrement=True,
)

mutes = Table(  # patterns whose verdicts are kept out of the inbox until a time
    "mutes",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("scope", String(16), nullable=False),
    Column("site", String(64), nullable=False),  # "" for a scope of all sites
    Column("device_id", String(64), nullable=False),  # "" for a larger scope, and so is the source
    Column("source_id", String(512), nullable=False),
    Column("bundle_name", String(128), nullable=False),
    Column("modality", String(16), nullable=False),
    Column("version", Integer, nullable=False),  # of the signature
    Column("vector", JSON, nullable=False),
    Column("likeness", Double, nullable=False),
    Column("p_value", Double, nullable=False),  # lowest of the pattern
    Column("item", Number, nullable=False),  # from which it was made
    Column("note", String(2000), nullable=False),
    Column("author", String(128), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("at_s", Double, nullable=False),
    Column("expires_at_s", Double, nullable=False),
    Column("ended_at_s", Double),
    Column("ended_by", String(128), nullable=False, server_default=""),
    Column("client_key", String(128)),
    Column("hidden_items", Number, nullable=False, server_default="0"),
    Column("hidden_verdicts", Number, nullable=False, server_default="0"),
    UniqueConstraint("actor", "client_key"),
    Index("ix_mutes_expires_at_s", "expires_at_s"),
    sqlite_autoincrement=True,
)

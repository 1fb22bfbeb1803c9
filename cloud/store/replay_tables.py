"""Tables of the replay of stored p-values; part of cloud.store.schema. See cloud.store.replay."""

from sqlalchemy import Column, Double, Integer, LargeBinary, String, Table

from cloud.store.metadata import metadata
from cloud.store.verdict_columns import Number

replay_progress = Table(  # one row: the last verdict that was counted
    "replay_progress",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("judged_at_s", Double, nullable=False),
    Column("number", Number, nullable=False),
)

replay_days = Table(  # histogram of the p-values of one source in one day, UTC
    "replay_days",
    metadata,
    Column("device_id", String(64), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),  # days since the epoch
    Column("source_id", String(512), primary_key=True),
    Column("cells", LargeBinary, nullable=False),  # see cloud.thresholds.cells
)

replay_budgets = Table(  # samples of one device in one day that smaller budgets would have let pass
    "replay_budgets",
    metadata,
    Column("device_id", String(64), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("cells", LargeBinary, nullable=False),
)

replay_buckets = Table(  # token buckets of a device behind the last verdict that was counted
    "replay_buckets",
    metadata,
    Column("device_id", String(64), primary_key=True),
    Column("at_s", Double, nullable=False),
    Column("levels", LargeBinary, nullable=False),
)

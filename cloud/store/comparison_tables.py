"""Tables of comparisons of two bundles on stored samples; part of cloud.store.schema."""

from sqlalchemy import JSON, Boolean, Column, Double, ForeignKey, Integer, String, Table

from cloud.store.metadata import metadata
from cloud.store.verdict_columns import Number

comparisons = Table(  # see cloud.store.comparisons
    "comparisons",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("bundle_name", String(64), nullable=False),
    Column("first_bundle_id", String(128), nullable=False),
    Column("second_bundle_id", String(128), nullable=False),
    Column("asked", JSON, nullable=False),  # a cloud.store.comparisons.AskedSamples
    Column("actor", String(128), nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", String(1000), nullable=False),
    Column("started_at_s", Double),
    Column("ended_at_s", Double),
    Column("runner", String(36), nullable=False),  # process that judges; "": none
    Column("runner_until_s", Double, nullable=False),  # by the clock of the database; another may take over then
    Column("attempts", Integer, nullable=False),
    Column("samples", Integer),  # NULL: not chosen yet
    Column("judged", Integer, nullable=False),
    Column("judging_s", Double, nullable=False),  # time that judging has taken, without waiting
    Column("waits_for_live", Boolean, nullable=False),
    Column("false_alarm_rate", Double),  # of the decisions; NULL: not begun
    sqlite_autoincrement=True,
)

comparison_samples = Table(  # samples of a comparison, with the answers of both bundles
    "comparison_samples",
    metadata,
    Column(
        "comparison",
        Number,
        ForeignKey("comparisons.number", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    # No foreign key: a sample may expire, and its figures stay.
    Column("sample_number", Number, primary_key=True, autoincrement=False),
    Column("label", String(16), nullable=False),  # "": none
    Column("judged", Boolean, nullable=False),
    Column("first_p_value", Double),  # NULL: it could not be judged
    Column("first_decision", String(16)),
    Column("first_latency_ms", Double),
    Column("second_p_value", Double),
    Column("second_decision", String(16)),
    Column("second_latency_ms", Double),
)

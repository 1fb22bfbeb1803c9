"""Tables of rollouts in stages; part of cloud.store.schema."""

from sqlalchemy import JSON, Column, Double, ForeignKey, Index, Integer, String, Table, text

from cloud.store.metadata import metadata
from cloud.store.verdict_columns import Number

staged_rollouts = Table(  # beside the current bundle: the stages of a rollout, see cloud.rollouts
    "staged_rollouts",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("bundle_name", String(64), nullable=False),
    Column("bundle_id", String(128), ForeignKey("bundles.bundle_id"), nullable=False),
    Column("before_bundle_id", String(128), ForeignKey("bundles.bundle_id"), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("stages", JSON, nullable=False),  # a list of cloud.rollouts.stages.Stage
    Column("stage", Integer, nullable=False),  # place in `stages`
    Column("started_at_s", Double, nullable=False),
    Column("stage_started_at_s", Double, nullable=False),
    Column("stage_started_samples", Double, nullable=False),  # screened by the new bundle when the stage began
    Column("ended_at_s", Double),  # NULL while it is under way or paused
    Column("limits", JSON(none_as_null=True)),  # a cloud.rollouts.limits.RolloutLimits; NULL: the defaults
    Column("gates", JSON, nullable=False),  # a list of cloud.rollouts.gates.GateResult
    # Verdicts counted so far, by bundle: cloud.rollouts.observation.Tally; and the key of the last one.
    Column("tallies", JSON, nullable=False),
    Column("counted_judged_at_s", Double, nullable=False),
    Column("counted_number", Number, nullable=False),
    # A list of cloud.rollouts.stage_devices.StageDevices, by stage; NULL: not checked yet.
    Column("devices", JSON(none_as_null=True)),
    Index(
        "uq_staged_rollouts_active",
        "bundle_name",
        unique=True,
        sqlite_where=text("ended_at_s IS NULL"),
        postgresql_where=text("ended_at_s IS NULL"),
    ),
    Index("ix_staged_rollouts_bundle_name_number", "bundle_name", "number"),
    sqlite_autoincrement=True,
)

rollout_devices = Table(  # counts [screened, forwarded, alarmed] of each device at the moments that gates compare
    "rollout_devices",
    metadata,
    Column("rollout", Number, ForeignKey("staged_rollouts.number"), primary_key=True, autoincrement=False),
    Column("device_id", String(64), primary_key=True),
    Column("first", JSON, nullable=False),  # at the first heartbeat during the rollout
    Column("wanted_at_s", Double),  # since when a stage includes the device
    Column("warnings", JSON, nullable=False),  # about bundles, at that time
    Column("swapped", JSON),  # at the first heartbeat that names the new bundle
    Column("tally", JSON(none_as_null=True)),  # of its verdicts with the new bundle: a Tally; NULL: none yet
)

rollout_history = Table(
    "rollout_history",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("rollout", Number, ForeignKey("staged_rollouts.number"), nullable=False),
    Column("at_s", Double, nullable=False),
    Column("event", String(32), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("stage", Integer, nullable=False),
    Column("author", String(128), nullable=False),
    Column("reason", String(1024), nullable=False),
    Index("ix_rollout_history_rollout_number", "rollout", "number"),
    sqlite_autoincrement=True,
)

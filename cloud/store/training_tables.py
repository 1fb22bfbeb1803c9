"""Table of training jobs."""

from sqlalchemy import JSON, Boolean, Column, Double, Index, Integer, String, Table, false

from cloud.store.metadata import metadata
from cloud.store.verdict_columns import Number

training_jobs = Table(
    "training_jobs",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("job_id", String(32), nullable=False, unique=True),
    Column("created_by", String(128), nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("sites", JSON, nullable=False),  # of the account that started it; empty: all
    Column("data", JSON, nullable=False),  # where the samples come from
    Column("options", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("cancel_requested", Boolean, nullable=False, server_default=false()),
    Column("attempts", Integer, nullable=False, server_default="0"),
    # Process that runs the job, until when it has to renew that by the clock of the database; NULL while none runs it.
    Column("claimant", String(64)),
    Column("claim_until_s", Double),
    Column("started_at_s", Double),  # of the last attempt
    Column("ended_at_s", Double),
    Column("stage", String(64), nullable=False, server_default=""),
    Column("share", Double, nullable=False, server_default="0"),  # of the stage that is done, 0 to 1
    Column("remaining_s", Double),  # of the stage; NULL: unknown
    Column("log", JSON, nullable=False),  # the newest lines
    Column("reason", String(1024), nullable=False, server_default=""),  # of the last failed attempt, or of the end
    Column("result", JSON(none_as_null=True)),
    Column("published", JSON(none_as_null=True)),
    Index("ix_training_jobs_state", "state", "number"),
    sqlite_autoincrement=True,
)

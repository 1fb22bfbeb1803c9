"""Tables of the service. Times are seconds since the epoch, UTC, in double precision.

A sample and its verdict share `number`, the order in which samples left the inbox. `samples` and `verdicts` hold what
lists show, filter and sort; payloads and maps are in separate tables, so that paging never reads a picture. Large
payloads and maps lie in segments outside the database (`cloud.store.segments`); their rows hold the place. `events`
holds what devices watch; an event is written in the transaction of the change that it reports.

On PostgreSQL these four are partitioned by `number`. They and the tables that refer to them have no foreign keys there,
and the id of a sample is unique by a table of its own (`cloud.store.postgres.partitions`).
"""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    event,
    false,
    text,
)

from cloud.store.account_tables import account_links as account_links
from cloud.store.account_tables import api_tokens as api_tokens
from cloud.store.account_tables import sessions as sessions
from cloud.store.account_tables import users as users
from cloud.store.comparison_tables import comparison_samples as comparison_samples
from cloud.store.comparison_tables import comparisons as comparisons
from cloud.store.group_tables import device_groups as device_groups
from cloud.store.group_tables import device_moves as device_moves
from cloud.store.group_tables import group_changes as group_changes
from cloud.store.label_tables import defect_classes as defect_classes
from cloud.store.label_tables import missed_reports as missed_reports
from cloud.store.label_tables import mutes as mutes
from cloud.store.metadata import key_to_partitions
from cloud.store.metadata import metadata as metadata
from cloud.store.notice_tables import deliveries as deliveries
from cloud.store.notice_tables import notices as notices
from cloud.store.notice_tables import verdict_feeds as verdict_feeds
from cloud.store.notice_tables import webhooks as webhooks
from cloud.store.postgres.partitions import OWN_TABLES, first_statements
from cloud.store.replay_tables import replay_buckets as replay_buckets
from cloud.store.replay_tables import replay_budgets as replay_budgets
from cloud.store.replay_tables import replay_days as replay_days
from cloud.store.replay_tables import replay_progress as replay_progress
from cloud.store.review_tables import review_decisions as review_decisions
from cloud.store.review_tables import review_items as review_items
from cloud.store.review_tables import review_marks as review_marks
from cloud.store.review_tables import review_members as review_members
from cloud.store.review_tables import review_progress as review_progress
from cloud.store.review_tables import review_signatures as review_signatures
from cloud.store.review_tables import review_views as review_views
from cloud.store.rollout_tables import rollout_devices as rollout_devices
from cloud.store.rollout_tables import rollout_history as rollout_history
from cloud.store.rollout_tables import staged_rollouts as staged_rollouts
from cloud.store.segment_tables import dirty_segments as dirty_segments
from cloud.store.segment_tables import place_columns, segment_index
from cloud.store.segment_tables import segment_folder as segment_folder
from cloud.store.share_tables import share_links as share_links
from cloud.store.training_tables import training_jobs as training_jobs
from cloud.store.triggers import TRIGGERS
from cloud.store.verdict_columns import SAMPLES, VERDICTS, Number, table_columns
from shared.status import HeartbeatCounters

ALL_DEVICES = ""
"""`device_id` of an event for all devices."""

HEARTBEAT_INTEGERS = (*HeartbeatCounters.model_fields, "spool_samples", "spool_bytes")

KIND = ("modality", "route", "decision")
"""Columns of a verdict that have few values; together the kind of a verdict."""

DEFAULT_PLACE = "default"
"""Site and group of a device that was given none."""

EVENT_VERDICT, EVENT_BUNDLE_CHANGED = "verdict", "bundle_changed"

_BY_NUMBER: dict[str, Any] = {"postgresql_partition_by": "RANGE (number)"}

devices = Table(
    "devices",
    metadata,
    Column("device_id", String(64), primary_key=True),
    Column("enrolled_at_s", Double, nullable=False),
    # Hexadecimal; a later enrolment replaces the certificate, and only the newest gives access.
    Column("certificate_serial", String(64), nullable=False),
    Column("certificate_expires_at_s", Double, nullable=False),
    Column("revoked_at_s", Double),
    # A renewed certificate that the device has not used yet; its first use makes it the newest.
    Column("next_certificate_serial", String(64)),
    Column("next_certificate_expires_at_s", Double),
    Column("removed_at_s", Double),  # the row stays only for verdicts that are kept, and no list shows it
    Column("site", String(64), nullable=False, server_default=DEFAULT_PLACE),
    Column("group_name", String(64), nullable=False, server_default=DEFAULT_PLACE),
    Column("title", String(80), nullable=False, server_default=""),  # name for people; "": the id
)

device_removals = Table(  # devices whose data is being deleted
    "device_removals",
    metadata,
    Column("device_id", String(64), primary_key=True),
    Column("keep_verdicts", Boolean, nullable=False),
    Column("requested_at_s", Double, nullable=False),
)

heartbeats = Table(  # the latest of each device
    "heartbeats",
    metadata,
    Column("device_id", String(64), ForeignKey("devices.device_id"), primary_key=True),
    Column("received_at_s", Double, nullable=False),
    Column("agent_version", String(64), nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in HEARTBEAT_INTEGERS),
    # Each a list of `shared.status.RunningBundle` and of texts.
    Column("running", JSON, nullable=False),
    Column("warnings", JSON, nullable=False),
    Column("key_set_sha256", String(64), nullable=False, server_default=""),  # in force on the device; "": unknown
    Column("clock_offset_s", Double),  # the device's clock minus the service's; NULL from an older agent
    # In force on the device, a shared.group_settings.GroupSettings; NULL from an older agent.
    Column("settings", JSON(none_as_null=True)),
    Column("settings_refusal", String(400), nullable=False, server_default=""),
    Column("disk_free_bytes", BigInteger),  # NULL: unknown
    Column("health", String(16), nullable=False, server_default=""),  # see cloud.device_health; "": not known yet
)

heartbeat_history = Table(  # one heartbeat of each device for every few minutes: see cloud.store.heartbeat_history
    "heartbeat_history",
    metadata,
    Column("device_id", String(64), primary_key=True),
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("received_at_s", Double, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in HEARTBEAT_INTEGERS),
    Column("health", String(16), nullable=False),
    Column("is_drifting", Boolean, nullable=False),
    Column("certificate_expires_at_s", Double, nullable=False),
    Index("ix_heartbeat_history_slot", "slot"),
)

near_copies = Table(  # copies of a sample that stayed on its device: see cloud.store.near_copies
    "near_copies",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=False),  # of the sample
    Column("device_id", String(64), nullable=False),
    Column("copies", BigInteger, nullable=False),
    Column("last_at_s", Double, nullable=False),
    Column("received_at_s", Double, nullable=False),
    Index("ix_near_copies_device_id", "device_id"),
    Index("ix_near_copies_received_at_s", "received_at_s"),
)

group_settings = Table(  # desired settings of the groups that have some
    "group_settings",
    metadata,
    Column("group_name", String(64), primary_key=True),
    Column("settings", JSON, nullable=False),  # the given values of a shared.group_settings.GroupSettings
    Column("changed_at_s", Double, nullable=False),
)

key_sets = Table(  # signed lists of the keys that may sign bundles; a root is stored with the set that follows it
    "key_sets",
    metadata,
    Column("serial", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("stored_at_s", Double, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    # Hash of the secret in the token; the secret itself is never stored.
    Column("secret_sha256", String(64), primary_key=True),
    Column("device_id", String(64), nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("expires_at_s", Double, nullable=False),
    Column("spent_at_s", Double),
    # Place of the device from its enrolment on; NULL keeps the one that it has.
    Column("site", String(64)),
    Column("group_name", String(64)),
)

inbox = Table(  # accepted requests whose samples are not rows yet: see cloud.store.inbox
    "inbox",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("first_sample_id", LargeBinary(16), nullable=False, unique=True),
    Column("device_id", String(64), ForeignKey("devices.device_id"), nullable=False),
    Column("received_at_s", Double, nullable=False),
    Column("samples", Integer, nullable=False),
    Column("decoded_bytes", BigInteger, nullable=False),
    # A serialised vedette.v1.SubmitRequest; payloads that lie in a segment are left out.
    Column("data", LargeBinary, nullable=False),
    Column("traced", LargeBinary, nullable=False),  # ids of the traced samples, 16 bytes each
    Column("segment_id", LargeBinary(16)),  # NULL: all payloads are in `data`
    Column("segment_places", LargeBinary),  # of the payload of each sample: see cloud.store.segments
    Index("ix_inbox_queue", "device_id", "number", "samples", "decoded_bytes", "received_at_s"),
    segment_index("inbox", "segment_id"),
    sqlite_autoincrement=True,
)

samples = Table(
    SAMPLES,
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    *table_columns(SAMPLES),
    Column("judged", Boolean, nullable=False, server_default=false()),
    Column("traced", Boolean, nullable=False, server_default=false()),  # see shared.tracing
    key_to_partitions("device_id", "devices.device_id"),
    UniqueConstraint("sample_id").ddl_if(dialect="sqlite"),
    # Queue of the analysis: only samples that wait.
    Index(
        "ix_samples_waiting",
        "device_id",
        "number",
        sqlite_where=text("judged = 0"),
        postgresql_where=text("NOT judged"),
    ),
    Index(  # of judged samples, which a search finds
        "ix_samples_origin",
        text("lower(origin)"),
        sqlite_where=text("judged = 1"),
        postgresql_where=text("judged"),
    ),
    sqlite_autoincrement=True,
    **_BY_NUMBER,
)

payloads = Table(
    "payloads",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=False),
    key_to_partitions("number", "samples.number", "CASCADE"),
    # A number of vedette.v1.PayloadEncoding; with `shape`, `data` and `part` the message as received.
    Column("encoding", Integer, nullable=False),
    Column("shape", JSON, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("part", LargeBinary),  # a vedette.v1.ImageCrop, of images that did not travel whole
    # Coarse map of the edge, (height, width) uint8 in C order; NULL if it sent none.
    Column("edge_map_height", Integer),
    Column("edge_map_width", Integer),
    Column("edge_map", LargeBinary),
    *place_columns(),
    segment_index("payloads", "segment_id", "segment_bytes"),
    **_BY_NUMBER,
)

claims = Table(  # waiting samples that a process judges, where several do: see cloud.store.claims
    "claims",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=False),
    key_to_partitions("number", "samples.number", "CASCADE"),
    Column("claimant", String(36), nullable=False),
    Column("until_s", Double, nullable=False),  # by the clock of the database
)

verdicts = Table(
    VERDICTS,
    metadata,
    Column("number", Number, primary_key=True, autoincrement=False),
    key_to_partitions("number", "samples.number", "CASCADE"),
    *table_columns(VERDICTS),
    Index("ix_verdicts_judged_at_s", "judged_at_s", "number"),
    # Every filter of the console is a few ranges of one of these: see cloud.store.verdict_ranges.
    Index("ix_verdicts_kind", *KIND, "judged_at_s", "number"),
    Index("ix_verdicts_device_id_kind", "device_id", *KIND, "judged_at_s", "number"),
    **_BY_NUMBER,
)

verdict_counts = Table(  # kept by cloud.store.triggers; device_id ALL_DEVICES counts all of them
    "verdict_counts",
    metadata,
    Column("device_id", String(64), primary_key=True),
    *(Column(name, String(16), primary_key=True) for name in KIND),
    Column("verdicts", BigInteger, nullable=False),
)

sources = Table(  # every source of a judged sample, by its name in lower case
    "sources",
    metadata,
    Column("source_key", String(512), primary_key=True),
    Column("device_id", String(64), primary_key=True),
)

anomaly_maps = Table(  # of the verdicts that have one
    "anomaly_maps",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=False),
    key_to_partitions("number", "verdicts.number", "CASCADE"),
    # image: patches; series: (length, channels). uint8 in C order, 255 far outside normal.
    Column("height", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("cells", LargeBinary, nullable=False),
    *place_columns(),
    segment_index("anomaly_maps", "segment_id", "segment_bytes"),
    **_BY_NUMBER,
)

events = Table(
    "events",
    metadata,
    Column("cursor", Number, primary_key=True, autoincrement=True),
    Column("device_id", String(64), nullable=False),  # or ALL_DEVICES
    Column("kind", String(32), nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("number", Number),  # of the verdict
    Column("bundle_name", String(64)),
    Column("bundle_id", String(128)),
    Index("ix_events_device_id_cursor", "device_id", "cursor"),
    sqlite_autoincrement=True,  # a cursor is never used twice, even after old events were removed
)

bundles = Table(
    "bundles",
    metadata,
    Column("bundle_id", String(128), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("modality", String(16), nullable=False),
    Column("published_at_s", Double, nullable=False),
    Column("parent_bundle_id", String(128), nullable=False),
    # Archive that FetchBundle sends, without cloud/.
    Column("edge_archive_bytes", BigInteger, nullable=False),
    Column("edge_archive_sha256", String(64), nullable=False),
    Column("manifest", JSON, nullable=False),
    UniqueConstraint("name", "version"),
)

bundle_groups = Table(  # groups that get the bundles of a name; a name without a row is for all groups
    "bundle_groups",
    metadata,
    Column("bundle_name", String(64), primary_key=True),
    Column("group_name", String(64), primary_key=True),
)

rollouts = Table(  # the newest row of a name says which bundle is current
    "rollouts",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("bundle_name", String(64), nullable=False),
    Column("bundle_id", String(128), ForeignKey("bundles.bundle_id"), nullable=False),
    Column("action", String(16), nullable=False),  # "publish" or "rollback"
    Column("at_s", Double, nullable=False),
    Index("ix_rollouts_bundle_name_number", "bundle_name", "number"),
    sqlite_autoincrement=True,
)

labels = Table(  # of operators on samples; rows are only added, and the newest of a sample counts
    "labels",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("sample_number", Number, nullable=False),
    key_to_partitions("sample_number", "samples.number", "CASCADE"),
    Column("label", String(16), nullable=False),
    Column("author", String(128), nullable=False),
    Column("note", String(2000), nullable=False),
    Column("at_s", Double, nullable=False),
    Column("actor", String(128), nullable=False),  # who stored it; with client_key the identity of a request
    Column("client_key", String(128)),
    Column("defect_class", Number),  # in defect_classes
    UniqueConstraint("actor", "client_key"),
    Index("ix_labels_sample_number_number", "sample_number", "number"),
    Index("ix_labels_label_sample_number", "label", "sample_number"),
    sqlite_autoincrement=True,
)

audit_log = Table(  # one row for each change of state, written in its transaction
    "audit_log",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("at_s", Double, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(32), nullable=False),
    Column("subject", String(256), nullable=False),
    Column("details", JSON, nullable=False),
    Index("ix_audit_log_action_number", "action", "number"),
    Index("ix_audit_log_subject_number", "subject", "number"),
    Index("ix_audit_log_actor_number", "actor", "number"),
    sqlite_autoincrement=True,
)


@event.listens_for(metadata, "after_create")
def _add_triggers(_: MetaData, connection: Connection, **__: Any) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ALTER TABLE payloads ALTER COLUMN data SET STORAGE EXTERNAL")
        for statement in (*OWN_TABLES, *first_statements()):
            connection.exec_driver_sql(statement)
    for statement in TRIGGERS[connection.dialect.name]:
        connection.exec_driver_sql(statement)

"""The first tables."""

import sqlalchemy as sa
from alembic import op

from shared.errors import StorageError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "bundles",
        sa.Column("bundle_id", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("modality", sa.String(length=16), nullable=False),
        sa.Column("published_at_s", sa.Double(), nullable=False),
        sa.Column("parent_bundle_id", sa.String(length=128), nullable=False),
        sa.Column("edge_archive_bytes", sa.BigInteger(), nullable=False),
        sa.Column("edge_archive_sha256", sa.String(length=64), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("bundle_id", name=op.f("pk_bundles")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_bundles_name_version")),
    )
    op.create_table(
        "devices",
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("enrolled_at_s", sa.Double(), nullable=False),
        sa.Column("certificate_serial", sa.String(length=64), nullable=False),
        sa.Column("certificate_expires_at_s", sa.Double(), nullable=False),
        sa.Column("revoked_at_s", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_devices")),
    )
    op.create_table(
        "events",
        sa.Column("cursor", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("bundle_name", sa.String(length=64), nullable=True),
        sa.Column("bundle_id", sa.String(length=128), nullable=True),
        sa.PrimaryKeyConstraint("cursor", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_device_id_cursor", "events", ["device_id", "cursor"], unique=False)
    op.create_table(
        "tokens",
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.Column("expires_at_s", sa.Double(), nullable=False),
        sa.Column("spent_at_s", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("secret_sha256", name=op.f("pk_tokens")),
    )
    op.create_table(
        "heartbeats",
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("received_at_s", sa.Double(), nullable=False),
        sa.Column("agent_version", sa.String(length=64), nullable=False),
        sa.Column("samples_screened", sa.BigInteger(), nullable=False),
        sa.Column("samples_forwarded", sa.BigInteger(), nullable=False),
        sa.Column("samples_audited", sa.BigInteger(), nullable=False),
        sa.Column("samples_alarmed", sa.BigInteger(), nullable=False),
        sa.Column("samples_rejected", sa.BigInteger(), nullable=False),
        sa.Column("samples_dropped", sa.BigInteger(), nullable=False),
        sa.Column("bytes_screened", sa.BigInteger(), nullable=False),
        sa.Column("bytes_uploaded", sa.BigInteger(), nullable=False),
        sa.Column("spool_samples", sa.BigInteger(), nullable=False),
        sa.Column("spool_bytes", sa.BigInteger(), nullable=False),
        sa.Column("running", sa.JSON(), nullable=False),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.device_id"], name=op.f("fk_heartbeats_device_id_devices")),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_heartbeats")),
    )
    op.create_table(
        "rollouts",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("bundle_name", sa.String(length=64), nullable=False),
        sa.Column("bundle_id", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["bundle_id"], ["bundles.bundle_id"], name=op.f("fk_rollouts_bundle_id_bundles")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_rollouts")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_rollouts_bundle_name_number", "rollouts", ["bundle_name", "number"], unique=False)
    op.create_table(
        "samples",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("sample_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("source_id", sa.String(length=512), nullable=False),
        sa.Column("modality", sa.String(length=16), nullable=False),
        sa.Column("origin", sa.String(length=512), nullable=False),
        sa.Column("captured_at_s", sa.Double(), nullable=False),
        sa.Column("received_at_s", sa.Double(), nullable=False),
        sa.Column("route", sa.String(length=16), nullable=False),
        sa.Column("edge_score", sa.Double(), nullable=True),
        sa.Column("edge_p_value", sa.Double(), nullable=False),
        sa.Column("edge_extrapolated", sa.Boolean(), nullable=False),
        sa.Column("edge_bundle_id", sa.String(length=512), nullable=False),
        sa.Column("calibration_id", sa.String(length=512), nullable=False),
        sa.Column("artefact", sa.String(length=512), nullable=False),
        sa.Column("payload_bytes", sa.Integer(), nullable=False),
        sa.Column("judged", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["devices.device_id"], name=op.f("fk_samples_device_id_devices")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_samples")),
        sa.UniqueConstraint("sample_id", name=op.f("uq_samples_sample_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_samples_device_id_received_at_s", "samples", ["device_id", "received_at_s", "number"], unique=False
    )
    op.create_index(
        "ix_samples_waiting",
        "samples",
        ["device_id", "number"],
        unique=False,
        sqlite_where=sa.text("judged = 0"),
        postgresql_where=sa.text("NOT judged"),
    )
    op.create_table(
        "payloads",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("encoding", sa.Integer(), nullable=False),
        sa.Column("shape", sa.JSON(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("edge_map_height", sa.Integer(), nullable=True),
        sa.Column("edge_map_width", sa.Integer(), nullable=True),
        sa.Column("edge_map", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["number"], ["samples.number"], name=op.f("fk_payloads_number_samples"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_payloads")),
    )
    op.create_table(
        "verdicts",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("device_id", sa.String(length=64), nullable=False),
        sa.Column("source_id", sa.String(length=512), nullable=False),
        sa.Column("modality", sa.String(length=16), nullable=False),
        sa.Column("judged_at_s", sa.Double(), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("p_value", sa.Double(), nullable=False),
        sa.Column("extrapolated", sa.Boolean(), nullable=False),
        sa.Column("bundle_id", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.String(length=1024), nullable=False),
        sa.Column("opinions", sa.JSON(), nullable=False),
        sa.Column("contributions", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["number"], ["samples.number"], name=op.f("fk_verdicts_number_samples"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_verdicts")),
    )
    op.create_index("ix_verdicts_decision_judged_at_s", "verdicts", ["decision", "judged_at_s", "number"], unique=False)
    op.create_index(
        "ix_verdicts_device_id_decision_judged_at_s",
        "verdicts",
        ["device_id", "decision", "judged_at_s", "number"],
        unique=False,
    )
    op.create_index(
        "ix_verdicts_device_id_judged_at_s", "verdicts", ["device_id", "judged_at_s", "number"], unique=False
    )
    op.create_index("ix_verdicts_judged_at_s", "verdicts", ["judged_at_s", "number"], unique=False)
    op.create_table(
        "anomaly_maps",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("cells", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["number"], ["verdicts.number"], name=op.f("fk_anomaly_maps_number_verdicts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_anomaly_maps")),
    )


def downgrade() -> None:
    """There is nothing before the first tables."""
    raise StorageError("There is no step before the first tables: move the data directory away to start over.")

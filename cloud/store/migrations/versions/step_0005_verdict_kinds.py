"""Counts of verdicts, and indexes for every filter and search of the console.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

KIND = ["modality", "route", "decision"]
OLD_INDEXES = {
    "ix_verdicts_decision_judged_at_s": ["decision"],
    "ix_verdicts_device_id_decision_judged_at_s": ["device_id", "decision"],
    "ix_verdicts_device_id_judged_at_s": ["device_id"],
}
TRIGGERS = (
    """CREATE TRIGGER count_new_verdict AFTER INSERT ON verdicts BEGIN
  INSERT INTO verdict_counts (device_id, modality, route, decision, verdicts)
    VALUES (NEW.device_id, NEW.modality, NEW.route, NEW.decision, 1), ('', NEW.modality, NEW.route, NEW.decision, 1)
    ON CONFLICT DO UPDATE SET verdicts = verdicts + 1;
  INSERT INTO sources (source_key, device_id) VALUES (lower(NEW.source_id), NEW.device_id) ON CONFLICT DO NOTHING;
END""",
    """CREATE TRIGGER count_removed_verdict AFTER DELETE ON verdicts BEGIN
  UPDATE verdict_counts SET verdicts = verdicts - 1
    WHERE device_id IN (OLD.device_id, '') AND modality = OLD.modality AND route = OLD.route
      AND decision = OLD.decision;
END""",
)


def upgrade() -> None:
    """Copy the route of each sample to its verdict, count the verdicts and list their sources."""
    for name in OLD_INDEXES:
        op.drop_index(name, "verdicts")
    op.add_column("verdicts", sa.Column("route", sa.String(16), nullable=False, server_default=""))
    op.execute("UPDATE verdicts SET route = (SELECT route FROM samples WHERE samples.number = verdicts.number)")
    op.create_table(
        "verdict_counts",
        sa.Column("device_id", sa.String(64), nullable=False),
        *(sa.Column(name, sa.String(16), nullable=False) for name in KIND),
        sa.Column("verdicts", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device_id", *KIND, name=op.f("pk_verdict_counts")),
    )
    op.create_table(
        "sources",
        sa.Column("source_key", sa.String(512), nullable=False),
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("source_key", "device_id", name=op.f("pk_sources")),
    )
    op.create_index("ix_verdicts_kind", "verdicts", [*KIND, "judged_at_s", "number"])
    op.create_index("ix_verdicts_device_id_kind", "verdicts", ["device_id", *KIND, "judged_at_s", "number"])
    op.create_index("ix_samples_origin", "samples", [sa.text("lower(origin)")])
    names = ", ".join(KIND)
    for device in ("device_id", "''"):
        groups = f"device_id, {names}" if device == "device_id" else names
        op.execute(
            f"INSERT INTO verdict_counts (device_id, {names}, verdicts)"
            f" SELECT {device}, {names}, count(*) FROM verdicts GROUP BY {groups}"
        )
    op.execute("INSERT INTO sources (source_key, device_id) SELECT DISTINCT lower(source_id), device_id FROM verdicts")
    for trigger in TRIGGERS:
        op.execute(trigger)


def downgrade() -> None:
    """Remove the counts and go back to the indexes of before."""
    for name in ("count_new_verdict", "count_removed_verdict"):
        op.execute(f"DROP TRIGGER {name}")
    op.drop_index("ix_samples_origin", "samples")
    op.drop_index("ix_verdicts_device_id_kind", "verdicts")
    op.drop_index("ix_verdicts_kind", "verdicts")
    op.drop_table("sources")
    op.drop_table("verdict_counts")
    op.drop_column("verdicts", "route")
    for name, columns in OLD_INDEXES.items():
        op.create_index(name, "verdicts", [*columns, "judged_at_s", "number"])

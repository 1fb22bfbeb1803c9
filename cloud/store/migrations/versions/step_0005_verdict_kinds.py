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
SQLITE_TRIGGERS = (
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
POSTGRESQL_TRIGGERS = (
    """CREATE FUNCTION count_new_verdicts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO verdict_counts AS counted (device_id, modality, route, decision, verdicts)
    SELECT device_id, modality, route, decision, count(*) FROM added GROUP BY device_id, modality, route, decision
    UNION ALL SELECT '', modality, route, decision, count(*) FROM added GROUP BY modality, route, decision
    ON CONFLICT (device_id, modality, route, decision) DO UPDATE SET verdicts = counted.verdicts + EXCLUDED.verdicts;
  INSERT INTO sources (source_key, device_id) SELECT DISTINCT lower(source_id), device_id FROM added
    ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$""",
    """CREATE FUNCTION count_removed_verdicts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE verdict_counts AS counted SET verdicts = counted.verdicts - gone.verdicts
    FROM (
      SELECT device_id, modality, route, decision, count(*) AS verdicts FROM removed
        GROUP BY device_id, modality, route, decision
      UNION ALL SELECT '', modality, route, decision, count(*) FROM removed GROUP BY modality, route, decision
    ) AS gone
    WHERE (counted.device_id, counted.modality, counted.route, counted.decision)
      = (gone.device_id, gone.modality, gone.route, gone.decision);
  RETURN NULL;
END $$""",
    """CREATE TRIGGER count_new_verdict AFTER INSERT ON verdicts
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_new_verdicts()""",
    """CREATE TRIGGER count_removed_verdict AFTER DELETE ON verdicts
  REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION count_removed_verdicts()""",
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
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    for statement in POSTGRESQL_TRIGGERS if is_postgresql else SQLITE_TRIGGERS:
        op.execute(statement)


def downgrade() -> None:
    """Remove the counts and go back to the indexes of before."""
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    for name in ("count_new_verdict", "count_removed_verdict"):
        op.execute(f"DROP FUNCTION {name}s CASCADE" if is_postgresql else f"DROP TRIGGER {name}")
    op.drop_index("ix_samples_origin", "samples")
    op.drop_index("ix_verdicts_device_id_kind", "verdicts")
    op.drop_index("ix_verdicts_kind", "verdicts")
    op.drop_table("sources")
    op.drop_table("verdict_counts")
    op.drop_column("verdicts", "route")
    for name, columns in OLD_INDEXES.items():
        op.create_index(name, "verdicts", [*columns, "judged_at_s", "number"])

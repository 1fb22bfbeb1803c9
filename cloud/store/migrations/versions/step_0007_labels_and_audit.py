"""Labels, tokens of the HTTP API and the audit log.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SQLITE_TRIGGERS = (
    """CREATE TRIGGER keep_label BEFORE UPDATE ON labels BEGIN
  SELECT RAISE(ABORT, 'labels are append-only');
END""",
    """CREATE TRIGGER keep_audit_entry BEFORE UPDATE ON audit_log BEGIN
  SELECT RAISE(ABORT, 'the audit log is append-only');
END""",
    """CREATE TRIGGER keep_audit_log BEFORE DELETE ON audit_log BEGIN
  SELECT RAISE(ABORT, 'the audit log is append-only');
END""",
)
POSTGRESQL_TRIGGERS = (
    """CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% append-only', TG_ARGV[0];
END $$""",
    """CREATE TRIGGER keep_label BEFORE UPDATE ON labels
  FOR EACH ROW EXECUTE FUNCTION refuse_change('labels are')""",
    """CREATE TRIGGER keep_audit_log BEFORE UPDATE OR DELETE ON audit_log
  FOR EACH ROW EXECUTE FUNCTION refuse_change('the audit log is')""",
    """CREATE TRIGGER keep_whole_audit_log BEFORE TRUNCATE ON audit_log
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('the audit log is')""",
)
# SQLite assigns row numbers by itself only where the key is exactly INTEGER.
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the three tables; the audit log begins with the next change."""
    op.create_table(
        "labels",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("sample_number", NUMBER, nullable=False),
        sa.Column("label", sa.String(16), nullable=False),
        sa.Column("author", sa.String(128), nullable=False),
        sa.Column("note", sa.String(2000), nullable=False),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("client_key", sa.String(128)),
        sa.ForeignKeyConstraint(
            ["sample_number"], ["samples.number"], name=op.f("fk_labels_sample_number_samples"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_labels")),
        sa.UniqueConstraint("actor", "client_key", name=op.f("uq_labels_actor_client_key")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_labels_sample_number_number", "labels", ["sample_number", "number"])
    op.create_table(
        "api_tokens",
        sa.Column("token_id", sa.String(16), nullable=False),
        sa.Column("secret_sha256", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.Column("expires_at_s", sa.Double(), nullable=False),
        sa.Column("revoked_at_s", sa.Double()),
        sa.Column("last_used_at_s", sa.Double()),
        sa.PrimaryKeyConstraint("token_id", name=op.f("pk_api_tokens")),
    )
    op.create_table(
        "audit_log",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("at_s", sa.Double(), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(256), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_log")),
        sqlite_autoincrement=True,
    )
    for name in ("action", "subject", "actor"):
        op.create_index(f"ix_audit_log_{name}_number", "audit_log", [name, "number"])
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    for statement in POSTGRESQL_TRIGGERS if is_postgresql else SQLITE_TRIGGERS:
        op.execute(statement)


def downgrade() -> None:
    """Remove labels, tokens and audit log with their contents."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_change CASCADE")
    else:
        for name in ("keep_label", "keep_audit_entry", "keep_audit_log"):
            op.execute(f"DROP TRIGGER {name}")
    for table in ("audit_log", "api_tokens", "labels"):
        op.drop_table(table)

"""Partitions of the large tables on PostgreSQL.

Revision ID: 0023
Revises: 0025
"""

from collections.abc import Iterable

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0025"
branch_labels = None
depends_on = None

_BOUNDS_LIKE = ("samples", "verdicts", "anomaly_maps")
_TABLES = (*_BOUNDS_LIKE, "payloads")
_LEAST_NUMBERS = 1_000_000
_KEYS = (  # table, column, referred column, whether rows go with it
    ("samples", "device_id", "devices.device_id", False),
    ("payloads", "number", "samples.number", True),
    ("verdicts", "number", "samples.number", True),
    ("anomaly_maps", "number", "verdicts.number", True),
    ("claims", "number", "samples.number", True),
    ("labels", "sample_number", "samples.number", True),
    ("share_links", "sample_number", "samples.number", True),
)
_OWN_TABLES = (
    """CREATE TABLE sample_keys (
  sample_id bytea NOT NULL, number bigint NOT NULL, device_id varchar(64) NOT NULL,
  CONSTRAINT pk_sample_keys PRIMARY KEY (sample_id)
)""",
    "CREATE TABLE waiting_from (number bigint NOT NULL, CONSTRAINT pk_waiting_from PRIMARY KEY (number))",
    "INSERT INTO waiting_from VALUES (0)",
)
_FUNCTIONS = (
    """CREATE FUNCTION delete_with_samples() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  numbers bigint[]; ids bytea[]; lowest bigint; highest bigint;
BEGIN
  SELECT array_agg(number), array_agg(sample_id), min(number), max(number)
    INTO numbers, ids, lowest, highest FROM removed;
  IF lowest IS NOT NULL THEN  -- the bounds leave out other partitions
    DELETE FROM labels WHERE sample_number = ANY(numbers);
    DELETE FROM share_links WHERE sample_number = ANY(numbers);
    DELETE FROM claims WHERE number = ANY(numbers);
    DELETE FROM payloads WHERE number = ANY(numbers) AND number BETWEEN lowest AND highest;
    DELETE FROM verdicts WHERE number = ANY(numbers) AND number BETWEEN lowest AND highest;
    DELETE FROM sample_keys WHERE sample_id = ANY(ids) AND number BETWEEN lowest AND highest;
  END IF;
  RETURN NULL;
END $$""",
    """CREATE FUNCTION delete_with_verdicts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  numbers bigint[]; lowest bigint; highest bigint;
BEGIN
  SELECT array_agg(number), min(number), max(number) INTO numbers, lowest, highest FROM removed;
  IF lowest IS NOT NULL THEN
    DELETE FROM anomaly_maps WHERE number = ANY(numbers) AND number BETWEEN lowest AND highest;
  END IF;
  RETURN NULL;
END $$""",
)
_CASCADES = (
    """CREATE TRIGGER delete_with_samples AFTER DELETE ON samples
  REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION delete_with_samples()""",
    """CREATE TRIGGER delete_with_verdicts AFTER DELETE ON verdicts
  REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION delete_with_verdicts()""",
)
_COUNTING = (
    """CREATE TRIGGER count_new_verdict AFTER INSERT ON verdicts
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_new_verdicts()""",
    """CREATE TRIGGER count_removed_verdict AFTER DELETE ON verdicts
  REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION count_removed_verdicts()""",
)


def upgrade() -> None:
    """Attach each table with its rows as the first partition of a new one; copy nothing but the ids.

    It reads each table once. The rows stay where they are until the whole first partition has expired.
    """
    if op.get_bind().dialect.name != "postgresql":
        return
    _execute(_OWN_TABLES)
    _execute(["INSERT INTO sample_keys SELECT sample_id, number, device_id FROM samples ORDER BY sample_id"])
    last = op.get_bind().execute(sa.text("SELECT last_value FROM samples_number_seq")).scalar_one()
    end = (last // _LEAST_NUMBERS + 1) * _LEAST_NUMBERS + 1
    for table, column, referred, _ in _KEYS:
        op.drop_constraint(_key_name(table, column, referred), table, type_="foreignkey")
    op.drop_constraint("uq_samples_sample_id", "samples", type_="unique")
    _execute([f"DROP TRIGGER {name} ON verdicts" for name in ("count_new_verdict", "count_removed_verdict")])
    for table in _TABLES:
        _partition(table, end)
    _execute([*_COUNTING, *_FUNCTIONS, *_CASCADES])


def downgrade() -> None:
    """Copy the rows back into tables without partitions, with their foreign keys; a large store takes its time."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in _TABLES:
        _unite(table)
    _execute(["DROP TABLE sample_keys", "DROP TABLE waiting_from"])
    _execute(["DROP FUNCTION delete_with_samples()", "DROP FUNCTION delete_with_verdicts()", *_COUNTING])
    op.create_unique_constraint("uq_samples_sample_id", "samples", ["sample_id"])
    for table, column, referred, goes_along in _KEYS:
        name, (referred_table, referred_column) = _key_name(table, column, referred), referred.split(".")
        ondelete = "CASCADE" if goes_along else None
        op.create_foreign_key(name, table, referred_table, [column], [referred_column], ondelete=ondelete)


def _partition(table: str, end: int) -> None:
    """Make the table a partition of a new one with its name, keys, indices and sequence.

    A table without rows is made anew instead, with the names that later partitions get.
    """
    first, indices = f"{table}_1", _indices(table)
    is_empty = op.get_bind().execute(sa.text(f"SELECT NOT EXISTS (SELECT FROM {table})")).scalar_one()
    _execute([f"ALTER TABLE {table} RENAME TO {first}"])
    _execute([f"ALTER TABLE {first} RENAME CONSTRAINT pk_{table} TO {first}_pkey"])
    _execute([f"ALTER INDEX {name} RENAME TO {name}_1" for name in indices])
    like = f"LIKE {first} INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING CONSTRAINTS"
    _execute(
        [
            f"CREATE TABLE {table} ({like}) PARTITION BY RANGE (number)",
            f"ALTER TABLE {table} ADD CONSTRAINT pk_{table} PRIMARY KEY (number)",
            *indices.values(),
            f"CREATE TABLE {table}_rest (LIKE {table} INCLUDING ALL)",
            f"ALTER TABLE {table} ATTACH PARTITION {table}_rest FOR VALUES FROM (MINVALUE) TO (1)",
        ]
    )
    if table == "samples":
        _execute(["ALTER SEQUENCE samples_number_seq OWNED BY samples.number"])
    if is_empty:
        _execute([f"DROP TABLE {first}", f"CREATE TABLE {first} (LIKE {table} INCLUDING ALL)"])
    _execute([f"ALTER TABLE {table} ATTACH PARTITION {first} FOR VALUES FROM (1) TO ({end})"])


def _unite(table: str) -> None:
    """Make the table one without partitions."""
    indices = _indices(table)
    like = f"LIKE {table} INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING CONSTRAINTS"
    _execute([f"CREATE TABLE united ({like})", f"INSERT INTO united SELECT * FROM {table} ORDER BY number"])
    if table == "samples":
        _execute(["ALTER SEQUENCE samples_number_seq OWNED BY united.number"])
    _execute(
        [
            f"DROP TABLE {table}",
            f"ALTER TABLE united RENAME TO {table}",
            f"ALTER TABLE {table} ADD CONSTRAINT pk_{table} PRIMARY KEY (number)",
            *indices.values(),
        ]
    )


def _indices(table: str) -> dict[str, str]:
    """Return the statements that make the indices of a table, by name, without that of its primary key."""
    query = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() AND tablename = :table"
    found = op.get_bind().execute(sa.text(query), {"table": table})
    return {name: made.replace(" ON ONLY ", " ON ") for name, made in found if name != f"pk_{table}"}


def _key_name(table: str, column: str, referred: str) -> str:
    return f"fk_{table}_{column}_{referred.split('.')[0]}"


def _execute(statements: Iterable[str]) -> None:
    for statement in statements:
        op.get_bind().exec_driver_sql(statement)

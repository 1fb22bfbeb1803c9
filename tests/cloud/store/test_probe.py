"""Tests of the attempt to write: its rows follow the schema, and nothing of them stays."""

import pytest
from sqlalchemy import Column, MetaData, Table, create_engine, delete, func, insert, select

from cloud.store.probe import empty_row, try_write
from cloud.store.schema import devices, events, metadata, samples
from cloud.store.verdict_columns import Number
from shared.errors import StorageError

REFUSING = {
    "sqlite": ["CREATE TRIGGER refuse BEFORE INSERT ON samples BEGIN SELECT RAISE(ABORT, 'refused'); END"],
    "postgresql": [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON samples EXECUTE FUNCTION refuse()",
    ],
}
REFUSING_NO_MORE = {"sqlite": "DROP TRIGGER refuse", "postgresql": "DROP FUNCTION refuse CASCADE"}


@pytest.mark.parametrize("enrolled", [True, False])
async def test_the_attempt_succeeds_and_leaves_nothing(store, enrolled):
    if not enrolled:
        async with store.writing() as connection:
            await connection.execute(delete(devices))
    await try_write(store)
    async with store.reading() as connection:
        for table in (samples, events):
            assert (await connection.execute(select(func.count()).select_from(table))).scalar_one() == 0


async def test_the_attempt_fails_if_the_table_of_samples_takes_no_row(store):
    async with store.writing() as connection:
        for statement in REFUSING[connection.dialect.name]:
            await connection.exec_driver_sql(statement)
    with pytest.raises(StorageError, match="refused"):
        await try_write(store)
    async with store.writing() as connection:
        await connection.exec_driver_sql(REFUSING_NO_MORE[connection.dialect.name])
    await try_write(store)


def test_a_required_column_of_any_type_in_the_schema_gets_a_value():
    """A new column needs no change of the attempt, whatever its type."""
    types = {str(column.type): column.type for table in metadata.tables.values() for column in table.columns}
    columns = [Column(f"new_{index}", sql_type, nullable=False) for index, sql_type in enumerate(types.values())]
    table = Table("added", MetaData(), Column("number", Number, primary_key=True), *columns)
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(insert(table).values(empty_row(table)))
        assert connection.execute(select(func.count()).select_from(table)).scalar_one() == 1
    engine.dispose()

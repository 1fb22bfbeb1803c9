"""What only PostgreSQL does: its migration, its errors, and connections that break."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, select, text

from cloud.settings import CloudSettings, StoreLocation
from cloud.store import open_store
from cloud.store.engine import store_exists
from cloud.store.migrate import alembic_configuration, migrate, newest_revision, upgrade
from cloud.store.postgres.connecting import connect, new_engine, run_alone
from cloud.store.schema import devices, metadata
from shared.errors import SettingsError, StorageError
from tests.cloud.store.backends import only_postgresql

OBJECTS = """
SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT conrelid::regclass || pg_get_constraintdef(oid) FROM pg_constraint
  WHERE connamespace = 'public'::regnamespace AND conrelid <> 'alembic_version'::regclass
ORDER BY 1
"""


def execute(url: str, statement: str) -> list[asyncpg.Record]:
    async def work() -> list[asyncpg.Record]:
        connection = await connect(url)
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    return run_alone(work())


def is_of_the_schema(item, name: str, kind: str, reflected: bool, _: object) -> bool:
    """Whether the schema declares it for PostgreSQL; the statements of the other objects are compared as they are."""
    if reflected:
        return kind != "table" or name in metadata.tables
    return kind not in ("foreign_key_constraint", "unique_constraint") or item._ddl_if is None


@pytest.mark.filterwarnings("ignore:.*expression-based index")  # compared by their statements
def test_the_migrations_lead_to_exactly_the_tables_of_the_schema_and_back(new_database):
    location = StoreLocation(Path(), new_database)
    assert not store_exists(location)
    assert migrate(location) == (None, newest_revision())
    assert store_exists(location)
    migrated = execute(new_database, OBJECTS)

    def compare(connection: Connection) -> None:
        context = MigrationContext.configure(connection, opts={"include_object": is_of_the_schema})
        assert compare_metadata(context, metadata) == []
        configuration = alembic_configuration()
        configuration.attributes["connection"] = connection
        command.downgrade(configuration, "0004")
        assert upgrade(connection) == ("0004", newest_revision())

    async def work() -> None:
        engine = new_engine(new_database)
        async with engine.begin() as connection:
            await connection.run_sync(compare)
        assert execute(new_database, OBJECTS) == migrated
        async with engine.begin() as connection:
            await connection.execute(text("DROP SCHEMA public CASCADE"))
            await connection.execute(text("CREATE SCHEMA public"))
            await connection.execute(text("CREATE TABLE alembic_version (version_num text)"))
            await connection.run_sync(metadata.create_all)
        await engine.dispose()

    asyncio.run(work())
    assert execute(new_database, OBJECTS) == migrated
    execute(new_database, "INSERT INTO alembic_version VALUES ('9999')")
    with pytest.raises(StorageError, match="Update Vedette"):
        migrate(location)


def test_errors_name_the_store_and_a_remedy(postgres_server):
    for url, words in (
        ("postgresql://vedette@127.0.0.1:9/vedette", "127.0.0.1:9/vedette: cannot be reached .*Start PostgreSQL"),
        (postgres_server.url("missing"), "createdb --template template0 --encoding UTF8 --locale C.UTF-8 missing"),
        (
            postgres_server.url("missing").replace("vedette@", "nobody@"),
            'role "nobody" does not exist.*user in store_url',
        ),
    ):
        with pytest.raises(StorageError, match=words):
            migrate(StoreLocation(Path(), url))
    with pytest.raises(SettingsError, match="sslmode"):
        migrate(StoreLocation(Path(), "postgresql://localhost/vedette?sslmode=bogus"))


def test_a_database_with_another_order_of_texts_is_refused(postgres_server):
    postgres_server.make("latin", encoding="LATIN1", locale="C")
    with pytest.raises(StorageError, match="its texts are not UTF-8 in the order"):
        migrate(StoreLocation(Path(), postgres_server.url("latin")))
    postgres_server.drop("latin")


def test_a_store_without_tables_names_the_command_to_run(new_database):
    async def work() -> None:
        async with open_store(StoreLocation(Path(), new_database)) as store, store.reading() as connection:
            await connection.execute(select(devices))

    with pytest.raises(StorageError, match="vedette cloud migrate"):
        asyncio.run(work())


@pytest.mark.parametrize("url", ["mysql://host/db", "postgresql://host", "postgresql://me:secret@host/db", "vedette"])
def test_a_store_url_names_a_database_and_no_password(url):
    with pytest.raises(ValueError, match="store_url") as error:
        CloudSettings(store_url=url)
    assert "write postgresql://USER@HOST/DATABASE" in str(error.value) or "PGPASSWORD" in str(error.value)


@only_postgresql
async def test_acknowledged_rows_are_on_disk_and_readers_keep_one_snapshot(store):
    async with store.writing() as connection:
        assert (await connection.execute(text("SHOW synchronous_commit"))).scalar_one() == "on"
    async with store.reading() as connection:
        assert (await connection.execute(text("SHOW transaction_isolation"))).scalar_one() == "repeatable read"
        assert (await connection.execute(text("SHOW transaction_read_only"))).scalar_one() == "on"


@only_postgresql
async def test_a_server_that_ends_all_connections_is_used_again(store, location):
    ended = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    async def read_and_end_connections() -> None:
        async with store.reading() as connection:
            await asyncio.to_thread(execute, location.url, ended)
            await connection.execute(select(devices))

    version = store.version()
    with pytest.raises(StorageError, match="cannot be read"):
        await read_and_end_connections()
    await asyncio.sleep(0.1)  # the driver reads the end of its connections
    async with asyncio.timeout(10):
        async with store.reading() as connection:
            assert len((await connection.execute(select(devices))).all()) == 2
        async with store.writing() as connection:
            await connection.execute(select(devices))
        while store.version() == version:
            await asyncio.sleep(0.02)

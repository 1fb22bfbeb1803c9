"""Migration of a PostgreSQL store."""

from typing import Any

from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.pool import NullPool

from cloud.store.migrate import upgrade
from cloud.store.postgres.connecting import DATABASE_ERRORS, connect, new_engine, run_alone, shown, storage_error
from shared.errors import StorageError

MIGRATION_LOCK = 0x7665_6465_7474_6502
_DEVICES = "SELECT EXISTS (TABLE devices) OR EXISTS (TABLE tokens) OR EXISTS (TABLE key_sets)"
_IN_ORDER_OF_BYTES = "SELECT 'Z' < 'a' AND 'a-b' < 'ab' AND 'ab' < 'é'"


def has_tables(url: str) -> bool:
    """Return whether a service has made its tables; raises StorageError if the server does not answer."""
    return bool(run_alone(_value(url, "SELECT to_regclass('alembic_version') IS NOT NULL")))


def holds_devices(url: str) -> bool:
    """Return whether the tables hold enrolment tokens, devices or key sets; raises StorageError."""
    try:
        return bool(run_alone(_value(url, _DEVICES)))
    except DATABASE_ERRORS as error:
        raise storage_error(url, error, "read") from error


def migrate_database(url: str) -> tuple[str | None, str]:
    """Apply missing steps in one transaction; return the revision before (None: no tables yet) and after."""
    return run_alone(_migrate(url))


async def _value(url: str, query: str) -> object:
    connection = await connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def _migrate(url: str) -> tuple[str | None, str]:
    engine = new_engine(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await _check_database(url, connection)
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            return await connection.run_sync(upgrade)
    except CommandError as error:
        raise StorageError(f"{shown(url)}: made by another version of Vedette ({error}). Update Vedette.") from None
    except DATABASE_ERRORS as error:
        raise storage_error(url, error, "brought up to date") from error
    finally:
        await engine.dispose()


async def _check_database(url: str, connection: Any) -> None:
    """Raise StorageError unless texts are UTF-8 in the order of their bytes, as searches by a beginning need it."""
    encoding = (await connection.execute(text("SHOW server_encoding"))).scalar_one()
    in_order = encoding == "UTF8" and (await connection.execute(text(_IN_ORDER_OF_BYTES))).scalar_one()
    if not in_order:
        name = shown(url).rpartition("/")[2]
        raise StorageError(
            f"{shown(url)}: its texts are not UTF-8 in the order of their bytes. Make the database with: createdb "
            f"--template template0 --encoding UTF8 --locale C.UTF-8 {name}."
        )

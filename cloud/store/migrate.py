"""Migration of the store's tables to the newest revision."""

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from cloud.store.engine import BUSY_TIMEOUT_MS, DATABASE_FILE
from shared.errors import StorageError


def migrate(data_dir: Path) -> tuple[str | None, str]:
    """Apply missing steps; return the revision before (None: no store yet) and after.

    The caller holds the setup lock. Raises StorageError if the file is not a store, was made by a newer version, or
    cannot be written.
    """
    path = data_dir / DATABASE_FILE
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})
    configuration = _configuration()
    try:
        with engine.begin() as connection:
            before = MigrationContext.configure(connection).get_current_revision()
            configuration.attributes["connection"] = connection
            command.upgrade(configuration, "head")
            after = MigrationContext.configure(connection).get_current_revision()
    except CommandError as error:
        raise StorageError(f"{path}: made by another version of Vedette ({error}). Update Vedette.") from None
    except (DBAPIError, sqlite3.Error) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise StorageError(
            f"{path}: cannot be brought up to date ({reason}). Check the disk's free space and the file's owner."
        ) from None
    finally:
        engine.dispose()
    return before, str(after)


def newest_revision() -> str:
    """Return the revision that this version of the code needs."""
    return str(ScriptDirectory.from_config(_configuration()).get_current_head())


def _configuration() -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", "cloud.store:migrations")
    configuration.set_main_option("path_separator", "os")
    return configuration

"""Migration of the store's tables to the newest revision.

Alembic is imported where it is called: commands that open no store start without it. The others spend a tenth of their
processor time on it, since each one brings the tables up to date.
"""

from typing import TYPE_CHECKING

from sqlalchemy import Connection

from cloud.store.engine import Where, location_of

if TYPE_CHECKING:
    from alembic.config import Config


def migrate(where: Where) -> tuple[str | None, str]:
    """Apply missing steps; return the revision before (None: no store yet) and after.

    The caller holds the setup lock of the data directory. Raises StorageError if it is not a store, was made by a newer
    version, or cannot be written.
    """
    location = location_of(where)
    if location.url:
        from cloud.store.postgres.migration import migrate_database

        return migrate_database(location.url)
    from cloud.store.sqlite.migration import migrate_file

    return migrate_file(location.data_dir)


def upgrade(connection: Connection) -> tuple[str | None, str]:
    """Apply missing steps in the transaction of a connection; return the revision before and after."""
    from alembic import command
    from alembic.runtime.migration import MigrationContext

    before = MigrationContext.configure(connection).get_current_revision()
    configuration = alembic_configuration()
    configuration.attributes["connection"] = connection
    command.upgrade(configuration, "head")
    after = MigrationContext.configure(connection).get_current_revision()
    return before, str(after)


def newest_revision() -> str:
    """Return the revision that this version of the code needs."""
    from alembic.script import ScriptDirectory

    return str(ScriptDirectory.from_config(alembic_configuration()).get_current_head())


def alembic_configuration() -> "Config":
    """Return the configuration of Alembic."""
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", "cloud.store:migrations")
    configuration.set_main_option("path_separator", "os")
    return configuration

"""Connections to a PostgreSQL server, with errors that say what to do."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from shared.errors import RefusedRowError, SettingsError, StorageError, StoreBusyError

T = TypeVar("T")
DATABASE_ERRORS = (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError)
CONNECT_S = 10.0
WRITER_LOCK = 0x7665_6465_7474_6501  # of pg_advisory_xact_lock
LOCK_WAIT_MS = 10_000  # as long as SQLite waits for its lock
MAX_REASON_CHARACTERS = 200  # of a refused row: the driver shows all values of a statement
_REFUSED_ROWS = ("22", "23")  # classes of SQLSTATE: data exception, integrity constraint violation
IDLE_IN_TRANSACTION_MS = 60_000  # a process that stands still must not hold the lock of all writers
SESSION = {
    "application_name": "vedette",
    "synchronous_commit": "on",  # over the default of the server: acknowledged samples survive a power cut
    "jit": "off",  # compiles for longer than short queries take
    "lock_timeout": str(LOCK_WAIT_MS),
    "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS),
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}


def shown(url: str) -> str:
    """Return the URL without a password and options, for messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


async def connect(url: str, **session: str) -> asyncpg.Connection:
    """Return a new connection; raises StorageError or SettingsError with a remedy."""
    try:
        return await asyncpg.connect(dsn=url, timeout=CONNECT_S, server_settings=SESSION | session)
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidPasswordError) as error:
        raise StorageError(
            f"{shown(url)}: refuses this user ({error}). Correct the user in store_url, and the password in PGPASSWORD "
            "or ~/.pgpass."
        ) from error
    except asyncpg.InvalidCatalogNameError as error:
        raise StorageError(
            f"{shown(url)}: {error}. Make it: createdb --template template0 --encoding UTF8 --locale C.UTF-8 "
            f"{urlsplit(url).path.strip('/')}."
        ) from error
    except asyncpg.TooManyConnectionsError as error:
        raise StorageError(f"{shown(url)}: {error}. Raise max_connections of the server.") from error
    except (OSError, asyncpg.PostgresError) as error:
        reason = str(error) or f"no answer within {CONNECT_S:.0f} s"
        raise StorageError(
            f"{shown(url)}: cannot be reached ({reason}). Start PostgreSQL, or correct store_url."
        ) from error
    except (ValueError, asyncpg.InterfaceError) as error:
        raise SettingsError(f"store_url = {shown(url)!r}: {error}.") from error


def new_engine(url: str, session: dict[str, str] | None = None, **options: Any) -> AsyncEngine:
    """Return an engine of connections to the server at `url`, each with the settings of `session`."""
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: connect(url, **(session or {})), **options
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def _refuse_closed(connection: Any, *_: object) -> None:
    """Let the pool replace a connection that the server has closed meanwhile, such as at its restart."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def run_alone(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that runs in a thread and an event loop of its own."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def storage_error(url: str, error: Exception, action: str) -> StorageError:
    """Return the StorageError for one of DATABASE_ERRORS; `action` names the failed work."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(cause, "sqlstate", None)
    reason = getattr(cause, "__cause__", None) or cause
    if state == asyncpg.QueryCanceledError.sqlstate:
        return StoreBusyError("The query took too long: try again, or restrict it.")
    if state == asyncpg.LockNotAvailableError.sqlstate:
        return StorageError(f"{shown(url)}: another process held the lock of writers for {LOCK_WAIT_MS} ms. Try again.")
    if state == asyncpg.UndefinedTableError.sqlstate:
        return StorageError(f"{shown(url)}: holds no tables. Run: vedette cloud migrate.")
    if state is not None and state[:2] in _REFUSED_ROWS:
        return RefusedRowError(f"{shown(url)}: does not take a row ({str(reason)[:MAX_REASON_CHARACTERS]}).")
    return StorageError(
        f"{shown(url)}: cannot be {action} ({reason}). Check the server, its log and its free disk space."
    )

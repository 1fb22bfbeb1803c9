"""A PostgreSQL server for the tests of one worker, and databases in it."""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cloud.store.postgres.connecting import connect, run_alone
from cloud.store.schema import metadata
from shared.errors import StorageError

USER = "vedette"
TEMPLATE, EMPTY = "vedette_template", "vedette_empty"
START_S = 30.0


@functools.cache
def programs() -> Path | None:
    """The folder of the newest installed server's programs; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("postgres")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class PostgresServer:
    """A server on a socket in a folder of its own, which loses its data in a power cut."""

    def __init__(self, folder: Path) -> None:
        bin_folder = programs()
        assert bin_folder is not None
        self._folder = folder
        # The server refuses to run as root.
        user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if os.getuid() == 0 else []
        if user:
            folder.chmod(0o755)
            shutil.chown(folder, "postgres", "postgres")
        made = ["--auth", "trust", "--username", USER, "--encoding", "UTF8", "--locale", "C.UTF-8"]
        quick = ["--no-sync", "--no-instructions", "--wal-segsize", "1"]
        data = folder / "data"
        subprocess.run([*user, bin_folder / "initdb", "-D", data, *made, *quick], check=True, capture_output=True)
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(folder),
            "fsync": "off",
            "full_page_writes": "off",
            "autovacuum": "off",
            "shared_buffers": "32MB",
            "max_wal_senders": "0",
            "wal_level": "minimal",
        }
        self._log = (folder / "log").open("wb")
        # The server ends with the worker, even if that is killed.
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "INT", *user[1:], bin_folder / "postgres", "-D", data]
            + [word for name, value in options.items() for word in ("-c", f"{name}={value}")],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._wait()

    def url(self, database: str) -> str:
        """The URL of a database."""
        return f"postgresql://{USER}@/{database}?host={self._folder}"

    def make(self, database: str, template: str = "template0", **options: str) -> None:
        """Make a database as a copy of another one, which no one uses."""
        words = " ".join(f"{name} '{value}'" for name, value in options.items())
        self._execute(f"CREATE DATABASE {database} TEMPLATE {template} STRATEGY file_copy {words}")

    def empty(self, database: str) -> None:
        """End the connections to a database, remove all rows without running triggers, and start numbers again."""
        tables = [table.name for table in metadata.sorted_tables]
        sequences = [
            f"{table.name}_{table.autoincrement_column.name}_seq"
            for table in metadata.sorted_tables
            if table.autoincrement_column is not None and table.autoincrement_column.autoincrement is True
        ]
        self._execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid();"
            "SET session_replication_role = replica;"
            + "".join(f"DELETE FROM {name};" for name in [*tables, "sample_keys"])
            + "UPDATE waiting_from SET number = 0;"
            + "".join(f"SELECT setval('{name}', 1, false);" for name in sequences),
            database,
        )

    def drop(self, database: str) -> None:
        """Remove a database, and end the connections to it."""
        self._execute(f"DROP DATABASE {database} WITH (FORCE)")

    def stop(self) -> None:
        """End the server and remove its data."""
        self._process.send_signal(signal.SIGINT)  # ends connections
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self._folder)

    def _execute(self, statement: str, database: str = "postgres") -> None:
        async def work() -> None:
            connection = await connect(self.url(database))
            await connection.execute(statement)
            await connection.close()

        run_alone(work())

    def _wait(self) -> None:
        deadline_s = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < deadline_s:
            with contextlib.suppress(StorageError):  # a server that is still starting takes connections and refuses
                self._execute("SELECT 1")
                return
            time.sleep(0.05)
        raise RuntimeError(f"PostgreSQL did not start: {(self._folder / 'log').read_text()[-2000:]}")


@contextlib.contextmanager
def running_server() -> Iterator[PostgresServer]:
    """Run a server with a short path: that of a socket has at most 107 characters."""
    server = PostgresServer(Path(tempfile.mkdtemp(prefix="vedette-pg-", dir="/tmp")))
    try:
        yield server
    finally:
        server.stop()

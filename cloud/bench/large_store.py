"""Generated store of millions of judged samples, for benchmarks of the console and of retention.

Devices take turns, each with one source. Nothing has the modality `video` or the route `accept`, so that these filters
match no row. The database itself makes the rows; indices and counts follow when all rows are there.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, create_engine, func, insert, literal, select, text
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex, DropIndex

from cloud.bench.large_store_rows import StoreContents, insert_statements, uuid7
from cloud.settings import StoreLocation
from cloud.store import open_store
from cloud.store.engine import Where, location_of, store_exists
from cloud.store.fleet_queries import device_ids
from cloud.store.labels import Label
from cloud.store.migrate import migrate
from cloud.store.postgres.connecting import new_engine, run_alone
from cloud.store.postgres.partitions import ADD_ALL_KEYS, driver_of, keep_ahead
from cloud.store.schema import (
    ALL_DEVICES,
    HEARTBEAT_INTEGERS,
    KIND,
    devices,
    heartbeats,
    labels,
    payloads,
    samples,
    sources,
    verdict_counts,
    verdicts,
)
from cloud.store.sqlite.store import DATABASE_FILE
from cloud.store.triggers import TRIGGERS
from shared.errors import SettingsError

CHUNK = 100_000
LABELLED = 20_000  # every n-th judged sample has a label
_BULK = (samples, verdicts, payloads)
_TRIGGER = "count_new_verdict"
_RUNNING = [{"source_id": "line-1", "bundle_name": "press", "bundle_id": "press-1-00000000", "artefact": "int8"}]


def prepare_store(location: StoreLocation, contents: StoreContents) -> None:
    """Make the generated store unless one is there; raises SettingsError for a store of a service."""
    devices_there = run_alone(_first_device(location)) if store_exists(location) else ()
    if devices_there not in ((), (device_name(0),)):
        raise SettingsError(f"{location}: holds a store that no benchmark has made. Give an empty database or folder.")
    if not devices_there:
        make_store(location, contents)
        os.sync()  # so that the system does not write it during the measurement


def make_store(where: Where, contents: StoreContents) -> None:
    """Make a new store with these rows. Raises StorageError if its tables cannot be made."""
    location = location_of(where)
    if location.url:
        migrate(location)
        run_alone(_fill_database(location, contents))
        return
    location.data_dir.mkdir(parents=True, exist_ok=True)
    migrate(location)
    engine = create_engine(f"sqlite:///{location.data_dir / DATABASE_FILE}", poolclass=NullPool)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for pragma in ("journal_mode = WAL", "synchronous = OFF", "cache_size = -1000000"):
            connection.exec_driver_sql(f"PRAGMA {pragma}")
        driver: Any = connection.connection.driver_connection
        driver.create_function("uuid7", 2, uuid7, deterministic=True)
        _fill(connection, contents)
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def device_name(number: int) -> str:
    """Return the id of a device, numbered from 0."""
    return f"device-{number:05d}"


async def _first_device(location: StoreLocation) -> tuple[str, ...]:
    async with open_store(location) as store, store.reading() as connection:
        return await device_ids(connection, 1)


async def _fill_database(location: StoreLocation, contents: StoreContents) -> None:
    session = {"maintenance_work_mem": "512MB", "synchronous_commit": "off"}
    engine = new_engine(location.url, session, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        total = contents.count + contents.waiting
        await keep_ahead(await driver_of(connection), total)
        await connection.run_sync(_fill, contents)
        await connection.execute(text(ADD_ALL_KEYS))
        await connection.execute(text(f"SELECT setval('samples_number_seq', {total})"))
        for table in (*_BULK, verdict_counts, sources, devices, heartbeats, labels):
            await connection.execute(text(f"VACUUM (ANALYZE) {table.name}"))  # as autovacuum does in time
        await connection.execute(text("VACUUM (ANALYZE) sample_keys"))
    await engine.dispose()


def _fill(connection: Connection, contents: StoreContents) -> None:
    """Insert all rows, each statement as a transaction of its own."""
    _add_devices(connection, contents)
    total = contents.count + contents.waiting
    with _bulk_loading(connection):
        for table in _BULK:
            last_row = {"samples": total, "verdicts": contents.count, "payloads": contents.with_payload}[table.name]
            for first in range(1, last_row + 1, CHUNK):
                last = min(first + CHUNK - 1, last_row)
                statement = insert_statements(connection.dialect.name, contents, first, last)[table.name]
                connection.exec_driver_sql(statement)
    _count(connection)
    _add_labels(connection, contents)


@contextmanager
def _bulk_loading(connection: Connection) -> Iterator[None]:
    """Drop indices and counting for the time of the block."""
    dialect = connection.dialect.name
    indices = [index for table in _BULK for index in table.indexes]
    of_table = f" ON {verdicts.name}" if dialect == "postgresql" else ""
    connection.exec_driver_sql(f"DROP TRIGGER {_TRIGGER}{of_table}")
    for index in indices:
        connection.execute(DropIndex(index))
    yield
    for index in indices:
        connection.execute(CreateIndex(index))
    made = next(item for item in TRIGGERS[dialect] if item.startswith(f"CREATE TRIGGER {_TRIGGER} "))
    connection.exec_driver_sql(made)


def _count(connection: Connection) -> None:
    """Fill the tables that a trigger keeps, from all verdicts."""
    kind = [verdicts.c[name] for name in KIND]
    for device_id, keys in ((verdicts.c.device_id, (verdicts.c.device_id, *kind)), (literal(ALL_DEVICES), kind)):
        counted = select(device_id, *kind, func.count()).group_by(*keys)
        connection.execute(insert(verdict_counts).from_select(["device_id", *KIND, "verdicts"], counted))
    found = select(func.lower(verdicts.c.source_id), verdicts.c.device_id).distinct()
    connection.execute(insert(sources).from_select(["source_key", "device_id"], found))


def _add_labels(connection: Connection, contents: StoreContents) -> None:
    """Label every `LABELLED`-th judged sample."""
    chosen = range(LABELLED, contents.count + 1, LABELLED)
    given = {"author": "operator", "note": "", "at_s": contents.end_s, "actor": "benchmark"}
    values = [Label.REAL, Label.FALSE_ALARM]
    rows = [{"sample_number": number, "label": str(values[place % 2]), **given} for place, number in enumerate(chosen)]
    if rows:
        connection.execute(insert(labels), rows)


def _add_devices(connection: Connection, contents: StoreContents) -> None:
    names = [device_name(number) for number in range(contents.devices)]
    end_s = contents.end_s
    certificate = {"enrolled_at_s": end_s - 9e7, "certificate_serial": "1f", "certificate_expires_at_s": end_s + 9e7}
    connection.execute(insert(devices), [{"device_id": name, **certificate} for name in names])
    counters = dict.fromkeys(HEARTBEAT_INTEGERS, 1000)
    beat = {"received_at_s": end_s, "agent_version": "0.1.0", "running": _RUNNING, "warnings": [], **counters}
    connection.execute(insert(heartbeats), [{"device_id": name, **beat} for name in names])

"""Partitions of the large tables: ranges of `number`, which grows with time.

Samples, verdicts and maps share their bounds; payloads are kept for a shorter time and have bounds of their own. The
lowest partition of a table, `..._rest`, has no lower bound: rows that outlive their partition move there. The others
are named by their first number. Housekeeping makes them ahead, and so does an insertion that finds none.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

LARGE_TABLES = {"payloads": ("payloads",), "verdicts": ("samples", "verdicts", "anomaly_maps")}
"""Tables that share their bounds, since retention deletes them together; payloads go first."""

LEAST_NUMBERS = 1_000_000
PARTS = 8  # a new partition takes this part of the stored range of numbers, so that their count stays small
PARTITION_LOCK = 0x7665_6465_7474_6505  # of pg_advisory_xact_lock
SWITCH_WAIT_MS = 50  # for a lock that others queue behind

ADD_ALL_KEYS = "INSERT INTO sample_keys SELECT sample_id, number, device_id FROM samples ORDER BY sample_id"
_FOUND = """
SELECT pg_get_expr(child.relpartbound, child.oid) FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
WHERE inhparent = $1::text::regclass"""
_BOUNDS = re.compile(r"FOR VALUES FROM \((?:MINVALUE|'(\d+)')\) TO \('(\d+)'\)")
_NEXT_OPEN = "SELECT number FROM waiting_from"
_WAITING_BELOW = "SELECT EXISTS (SELECT FROM samples WHERE NOT judged AND number >= $1 AND number < $2)"


@dataclass(frozen=True, slots=True)
class Partition:
    """Range of numbers from `first` (None: the rest, without a lower bound) to before `end`."""

    first: int | None
    end: int

    def name(self, table: str) -> str:
        """Return the name of this partition of a table."""
        return f"{table}_{'rest' if self.first is None else self.first}"

    def attach(self, table: str) -> str:
        """Return the statement that makes a table of that name a partition; readers and writers go on meanwhile."""
        first = "MINVALUE" if self.first is None else self.first
        return f"ALTER TABLE {table} ATTACH PARTITION {self.name(table)} FOR VALUES FROM ({first}) TO ({self.end})"

    def make(self, table: str) -> tuple[str, str]:
        """Return the statements that make an empty partition.

        CREATE TABLE ... PARTITION OF would lock the table against readers.
        """
        return f"CREATE TABLE {self.name(table)} (LIKE {table} INCLUDING ALL)", self.attach(table)


REST = Partition(None, 1)
OWN_TABLES = (
    """CREATE TABLE sample_keys (
  sample_id bytea NOT NULL, number bigint NOT NULL, device_id varchar(64) NOT NULL,
  CONSTRAINT pk_sample_keys PRIMARY KEY (sample_id)
)""",
    "CREATE TABLE waiting_from (number bigint NOT NULL, CONSTRAINT pk_waiting_from PRIMARY KEY (number))",
    "INSERT INTO waiting_from VALUES (0)",
)
"""Statements that make the tables which only PostgreSQL has: unique ids, and the first number that may wait."""


def next_partition(partitions: Sequence[Partition], last_number: int) -> Partition:
    """Return the partition above these, given the last number that was assigned."""
    first = partitions[-1].end
    lowest = next((item.first for item in partitions if item.first is not None), first)
    return Partition(first, first + max(LEAST_NUMBERS, (last_number - lowest) // PARTS))


def first_statements() -> list[str]:
    """Return the statements that make the first partitions of new tables."""
    made = (REST, next_partition([REST], 0))
    return [step for tables in LARGE_TABLES.values() for table in tables for item in made for step in item.make(table)]


async def driver_of(connection: AsyncConnection) -> Any:
    """Return asyncpg's connection under one of SQLAlchemy."""
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    return driver


async def partitions_of(driver: Any, table: str) -> list[Partition]:
    """Return the partitions of a table in the order of their bounds, the rest first."""
    found = [_BOUNDS.fullmatch(row[0]) for row in await driver.fetch(_FOUND, table)]
    bounds = [(match[1], int(match[2])) for match in found if match is not None]
    return sorted((Partition(int(first) if first else None, end) for first, end in bounds), key=lambda item: item.end)


async def keep_ahead(driver: Any, last_number: int = 0) -> bool:
    """Make partitions until an empty one follows all numbers assigned so far, and `last_number`; return if any is new.

    Several processes may do it at once. Raises the errors of asyncpg.
    """
    is_new = False
    async with driver.transaction():
        await driver.execute(f"SELECT pg_advisory_xact_lock({PARTITION_LOCK})")
        last = max(last_number, await driver.fetchval("SELECT last_value FROM samples_number_seq"))
        for tables in LARGE_TABLES.values():
            found = await partitions_of(driver, tables[0])
            while found[-1].first is None or found[-1].first <= last:
                found.append(next_partition(found, last))
                for table in tables:
                    await driver.execute(";".join(found[-1].make(table)))
                is_new = True
    return is_new


async def pass_judged(driver: Any) -> None:
    """Let the queries of the queue begin behind the partitions in which no sample waits any more.

    A new batch looks for each device into each partition that may hold a waiting sample.
    """
    last, begin = await driver.fetchval("SELECT last_value FROM samples_number_seq"), await driver.fetchval(_NEXT_OPEN)
    ends = [item.end for item in await partitions_of(driver, "samples") if begin < item.end <= last]
    for end in ends:
        if await driver.fetchval(_WAITING_BELOW, begin, end):
            return
        async with driver.transaction():
            await driver.execute(f"SET LOCAL lock_timeout = {SWITCH_WAIT_MS}")
            # Wait for transactions whose new samples are not visible yet.
            await driver.execute("LOCK TABLE ONLY samples IN SHARE MODE")
            if await driver.fetchval(_WAITING_BELOW, begin, end):
                return
            await driver.execute("UPDATE waiting_from SET number = $1", end)
        begin = end

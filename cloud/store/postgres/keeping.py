"""Rows that outlive their partition: copied to tables beside it, which then take its place.

When a partition expires, its labelled rows stay. They and the rows of the rest are copied, a few at a time and while
others read and write, to new tables that nobody sees yet. A trigger notes the numbers of rows that are changed or
deleted meanwhile, and these are copied again. `cloud.store.postgres.expiry` then exchanges the tables in one short
transaction, which copies and reads few rows however many are kept.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from cloud.store.postgres.partitions import SWITCH_WAIT_MS, Partition

MOST_ROWS = 500  # of one transaction, and their bytes unless one row alone has more
MOST_BYTES = 4 * 2**20
PAUSE_S = 0.02
KEPT, REPLACED = "kept_", "replaced_"
"""Prefixes of the new tables before the exchange, and of those of the rest after it."""

NUMBERS, CHANGES = "kept_numbers", "kept_changes"
"""Tables with the numbers of the labelled rows, and with those of rows that were changed meanwhile."""

_CONTENT = {"payloads": "data", "anomaly_maps": "cells"}
_NOTE = f"""
CREATE FUNCTION note_kept_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO {CHANGES} VALUES (OLD.number);
  RETURN NULL;
END $$"""
_NEWEST_LABEL = "SELECT coalesce(max(number), 0) FROM labels"
_LABELLED = """
SELECT DISTINCT sample_number FROM labels WHERE sample_number > $1 AND sample_number < $2
ORDER BY sample_number LIMIT $3"""
_LABELLED_SINCE = f"""
SELECT DISTINCT sample_number FROM labels WHERE number > $1 AND sample_number >= $2 AND sample_number < $3
AND NOT EXISTS (SELECT FROM {NUMBERS} WHERE number = sample_number) LIMIT $4"""
_STAYS = "({table}.number < {first} OR EXISTS (SELECT FROM labels WHERE labels.sample_number = {table}.number))"


async def discard(driver: Any) -> None:
    """Remove all that a copy has made and the exchange has not put in place.

    Raises LockNotAvailableError if others use the tables that were copied for long.
    """
    async with driver.transaction():
        await driver.execute(f"SET LOCAL lock_timeout = {SWITCH_WAIT_MS}")
        await _discard(driver)


async def _discard(driver: Any) -> None:
    await driver.execute("DROP FUNCTION IF EXISTS note_kept_change() CASCADE")  # with its triggers
    names = await driver.fetch(
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace "
        f"AND relname ~ '^({KEPT}|{REPLACED})(samples|verdicts|anomaly_maps|payloads|numbers|changes)$'"
    )
    for (name,) in names:
        await driver.execute(f"DROP TABLE {name}")


class Keeping:
    """Copy of the rest, and of the labelled rows of the lowest partition, of the tables of one group."""

    def __init__(self, driver: Any, tables: Sequence[str], rest: Partition, lowest: Partition) -> None:
        assert lowest.first is not None
        self._driver, self._tables = driver, tables
        self._parts = rest, lowest
        self._first, self._end = lowest.first, lowest.end
        self._label = 0  # number of the newest label that is known

    async def copy(self) -> None:
        """Copy the rows in small transactions; raises LockNotAvailableError if others use the partition for long."""
        async with self._driver.transaction():
            await self._driver.execute(f"SET LOCAL lock_timeout = {SWITCH_WAIT_MS}")
            await _discard(self._driver)
            for table in self._tables:
                # ATTACH need not read a table whose constraint says that all rows are within its bounds.
                bounds = f"CONSTRAINT {KEPT}bounds CHECK (number < {self._end})"
                await self._driver.execute(f"CREATE TABLE {KEPT}{table} (LIKE {table} INCLUDING ALL, {bounds})")
            await self._driver.execute(f"CREATE TABLE {NUMBERS} (number bigint PRIMARY KEY)")
            await self._driver.execute(f"CREATE TABLE {CHANGES} (number bigint NOT NULL)")
            await self._driver.execute(_NOTE)
            for table, part in ((table, part) for table in self._tables for part in self._parts):
                trigger = f"CREATE TRIGGER note_kept_change AFTER UPDATE OR DELETE ON {part.name(table)}"
                await self._driver.execute(f"{trigger} FOR EACH ROW EXECUTE FUNCTION note_kept_change()")
            self._label = await self._driver.fetchval(_NEWEST_LABEL)
        in_rest = f"SELECT number FROM {self._parts[0].name(self._tables[0])} WHERE number > $1 AND number < $2"
        await self._copy_all(f"{in_rest} ORDER BY number LIMIT $3", -(2**62), self._first)
        await self._copy_all(_LABELLED, self._first - 1, self._end)
        for table in self._tables:  # so that few rows are found by their keys under the lock
            await self._driver.execute(f"ANALYZE {KEPT}{table}")

    async def catch_up(self) -> bool:
        """Copy rows again that have changed, and those with a new label; return whether these were all.

        In the transaction of the caller, whose locks then keep others from changing further ones.
        """
        changed = f"SELECT DISTINCT number FROM {CHANGES} LIMIT $1"
        numbers = [row[0] for row in await self._driver.fetch(changed, MOST_ROWS)]
        given = (self._label, self._first, self._end, MOST_ROWS)
        numbers += [row[0] for row in await self._driver.fetch(_LABELLED_SINCE, *given)]
        sizes = await self._sizes(sorted(set(numbers)))
        if not (some := _first_ones(sizes)):
            return True
        await self._driver.execute(f"DELETE FROM {CHANGES} WHERE number = ANY($1::int8[])", some)
        await self._copy(some)
        return len(numbers) < MOST_ROWS and len(some) == len(sizes)

    async def exchange(self) -> None:
        """Put the copies in the place of the rest and of the partition, in the transaction of the caller."""
        rest, lowest = self._parts
        grown = Partition(None, lowest.end)
        for table in self._tables:
            for part in self._parts:
                await self._driver.execute(f"ALTER TABLE {table} DETACH PARTITION {part.name(table)}")
            await self._driver.execute(f"ALTER TABLE {rest.name(table)} RENAME TO {REPLACED}{table}")
            await self._driver.execute(f"ALTER TABLE {KEPT}{table} RENAME TO {rest.name(table)}")
            await self._driver.execute(grown.attach(table))
            await self._driver.execute(f"ALTER TABLE {rest.name(table)} DROP CONSTRAINT {KEPT}bounds")
        await self._driver.execute("DROP FUNCTION note_kept_change() CASCADE")

    async def _copy_all(self, query: str, after: int, end: int) -> None:
        """Copy the rows whose numbers a query finds after a place, a few at a time."""
        while numbers := [row[0] for row in await self._driver.fetch(query, after, end, MOST_ROWS)]:
            some = _first_ones(await self._sizes(numbers))
            async with self._driver.transaction():
                await self._copy(some)
            after = some[-1]
            await asyncio.sleep(PAUSE_S)

    async def _sizes(self, numbers: Sequence[int]) -> list[tuple[int, int]]:
        """Return the numbers in order, each with the bytes of its largest column."""
        table = next(name for name in self._tables if name in _CONTENT)
        query = f"SELECT number, octet_length({_CONTENT[table]}) FROM {table} WHERE number = ANY($1::int8[])"
        found = dict(await self._driver.fetch(f"{query} AND number < {self._end}", numbers))
        return [(number, found.get(number, 0)) for number in numbers]

    async def _copy(self, numbers: Sequence[int]) -> None:
        """Copy the rows of these numbers that stay, in place of earlier copies."""
        for table in self._tables:
            stays = _STAYS.format(table=table, first=self._first)
            await self._driver.execute(f"DELETE FROM {KEPT}{table} WHERE number = ANY($1::int8[])", numbers)
            chosen = f"SELECT * FROM {table} WHERE number = ANY($1::int8[]) AND number < {self._end} AND {stays}"
            await self._driver.execute(f"INSERT INTO {KEPT}{table} {chosen}", numbers)
        labelled = [number for number in numbers if number >= self._first]
        await self._driver.execute(f"INSERT INTO {NUMBERS} SELECT unnest($1::int8[]) ON CONFLICT DO NOTHING", labelled)


def _first_ones(sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Return the first numbers whose rows have MOST_BYTES together, at least one."""
    chosen, total = list[int](), 0
    for number, size in sizes:
        total += size
        if chosen and total > MOST_BYTES:
            break
        chosen.append(number)
    return chosen

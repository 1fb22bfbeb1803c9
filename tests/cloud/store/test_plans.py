"""Plans of PostgreSQL that do not grow with the table."""

import json
from typing import Any

from sqlalchemy import Select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.store.retention import payloads_after
from tests.cloud.store.backends import only_postgresql
from tests.cloud.store.test_store import judge_all


async def rows_read(connection: AsyncConnection, query: Select[Any]) -> dict[str, int]:
    """Rows that each scan of a query reads, by the name of the partition."""
    for name in ("enable_seqscan", "enable_hashjoin", "enable_nestloop"):  # as for large tables
        await connection.execute(text(f"SET LOCAL {name} = off"))
    statement = query.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
    found = (await connection.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"))).scalar_one()
    nodes = [(json.loads(found) if isinstance(found, str) else found)[0]["Plan"]]
    read = dict[str, int]()
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", ())
        if (name := node.get("Relation Name")) is not None:
            removed = node.get("Rows Removed by Filter", 0)
            read[name] = read.get(name, 0) + node["Actual Loops"] * (node["Actual Rows"] + removed)
    return read


@only_postgresql
async def test_a_step_of_retention_reads_the_rows_behind_its_place_alone(store, add):
    await add(count=60)
    await judge_all(store)
    async with store.reading() as connection:
        first = (await connection.execute(text("SELECT min(number) FROM samples"))).scalar_one()
        read = await rows_read(connection, payloads_after(first + 49, 5))
    assert {name.partition("_")[0] for name, count in read.items() if count} == {"samples", "payloads", "verdicts"}
    assert max(read.values()) <= 10, read

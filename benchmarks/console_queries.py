"""Time of each query of the console on a generated store with millions of verdicts of 500 devices.

`first_ms` is the time of the first call on a connection without cached pages, although the operating system may have
them; `median_ms` and `longest_ms` are of the calls after it. Filters "without a hit" match no row, and "rare" ones one
row in 50,000. `verdicts` is the size of the store: a million, or the store in the folder `VEDETTE_BENCH_STORE`.

The code before this page, measured with the same program on the same stores, medians:

| query | 1 million verdicts | 10 million verdicts |
|---|---|---|
| fleet summary | 284 ms | 8.3 s |
| devices | 1.0 s | 121 s |
| filter without a hit | 414 and 488 ms | 29 and 59 s |
| search, one hit | 700 ms | 15 s |
| search without a hit | 1.3 s | 33 s |

The larger store (7.8 GB) did not fit into the memory that was free. Its migration took 9.5 minutes beside other work,
and needed as much free disk as the file has.
"""

import asyncio
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.large_store import END_S, device_name, make_store
from cloud.store import open_store
from cloud.store.fleet_queries import device_ids, device_rows, fleet_summary
from cloud.store.queries import count_newer, judged_sample, verdict_page
from cloud.store.sqlite.store import DATABASE_FILE
from cloud.store.verdict_keys import VerdictFilter, VerdictKey
from shared.modality import Modality
from shared.samples import Decision, Route

COUNT, REPEATS = 1_000_000, 20
STORE_VARIABLE = "VEDETTE_BENCH_STORE"  # folder of a store that `make_store` made, to measure more than once
Query: TypeAlias = Callable[[AsyncConnection], Awaitable[Any]]

FILTERS = {
    "page": VerdictFilter(),
    "page_of_device": VerdictFilter(device_id=device_name(7)),
    "page_of_decision": VerdictFilter(decision=Decision.ANOMALOUS),
    "page_of_route": VerdictFilter(route=Route.ALARM),
    "page_of_modality_and_decision": VerdictFilter(modality=Modality.IMAGE, decision=Decision.ANOMALOUS),
    "page_of_last_hour": VerdictFilter(since_s=END_S - 3600, route=Route.AUDIT),
    "rare_decision": VerdictFilter(decision=Decision.UNDECIDED),
    "rare_decision_of_device": VerdictFilter(device_id=device_name(7), decision=Decision.UNDECIDED),
    "no_hit_modality": VerdictFilter(modality=Modality.VIDEO),
    "no_hit_route": VerdictFilter(route=Route.ACCEPT),
    "no_hit_device_and_modality": VerdictFilter(device_id=device_name(0), modality=Modality.IMAGE),
    "no_hit_time": VerdictFilter(until_s=1000.0),
    "search_frequent": VerdictFilter(text="part_"),
    "search_one": VerdictFilter(text="readings.csv:4321"),
    "search_source": VerdictFilter(text="line-13"),
    "search_no_hit": VerdictFilter(text="nothing has this name"),
    "search_no_hit_with_filter": VerdictFilter(text="nothing", decision=Decision.ANOMALOUS),
}


def run(quick: bool = False, *, count: int = COUNT) -> dict[str, Any]:
    """Return the times in ms of each query, by name."""
    kept = os.environ.get(STORE_VARIABLE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(kept) if kept else Path(name)
        figures: dict[str, Any] = {}
        if not (folder / DATABASE_FILE).exists():
            started_s = time.perf_counter()
            make_store(folder, count // 100 if quick else count)
            figures["made_in_s"] = time.perf_counter() - started_s
        figures["file_mb"] = (folder / DATABASE_FILE).stat().st_size / 1e6
        return figures | asyncio.run(_measure(folder))


async def _measure(folder: Path) -> dict[str, Any]:
    async with open_store(folder) as store, store.reading() as connection:
        newest = (await verdict_page(connection, VerdictFilter())).rows[0]
        position = VerdictKey(newest.judged_at_s - 1000, 0)
    queries: dict[str, Query] = {
        "fleet_summary": lambda connection: fleet_summary(connection, alive_since_s=END_S - 30),
        "devices": lambda connection: device_rows(connection, size=100),
        "devices_all": device_rows,
        "device_ids": device_ids,
        "detail": lambda connection: judged_sample(connection, newest.sample_id),
        "detail_unknown": lambda connection: judged_sample(connection, uuid.UUID(int=7)),
        "page_older": lambda connection: verdict_page(connection, VerdictFilter(), before=position),
        "page_newer": lambda connection: verdict_page(connection, VerdictFilter(), after=position),
        "count_newer": lambda connection: count_newer(connection, VerdictFilter(), position),
        "count_newer_no_hit": lambda connection: count_newer(connection, FILTERS["no_hit_route"], position),
    }
    queries |= {name: _page_query(wanted) for name, wanted in FILTERS.items()}
    async with open_store(folder) as store, store.reading() as connection:
        decisions = (await fleet_summary(connection, alive_since_s=0.0)).decisions
    figures = {name: await _times(folder, query) for name, query in queries.items()}
    longest = max(figures, key=lambda name: figures[name]["median_ms"])
    return {
        "verdicts": sum(decisions.values()),
        "slowest": longest,
        "slowest_median_ms": figures[longest]["median_ms"],
        **figures,
    }


def _page_query(wanted: VerdictFilter) -> Query:
    return lambda connection: verdict_page(connection, wanted)


async def _times(folder: Path, query: Query) -> dict[str, Any]:
    async with open_store(folder) as store:
        times_ms: list[float] = []
        async with store.reading() as connection:
            started_s = time.perf_counter()
            await query(connection)
            first_ms = 1e3 * (time.perf_counter() - started_s)
        repeats = REPEATS if first_ms < 200 else 3
        for _ in range(repeats):
            async with store.reading() as connection:
                started_s = time.perf_counter()
                await query(connection)
                times_ms.append(1e3 * (time.perf_counter() - started_s))
    return {"first_ms": first_ms, "median_ms": statistics.median(times_ms), "longest_ms": max(times_ms)}

"""Time of each query of the console on a generated store with a million verdicts of 500 devices.

`first_ms` is the time of the first call on a connection without cached pages, although the operating system may have
them; `median_ms` and `longest_ms` are of the calls after it. Filters "without a hit" match no row, and "rare" ones one
row in 50,000.

The code before this page, measured with the same program on the same store of a million verdicts, medians: fleet
summary 284 ms, devices 1,032 ms, filters without a hit 414 and 488 ms, searches 700 ms (one hit) and 1,316 ms (none).
The cost grew with the store.
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
from cloud.store import Store
from cloud.store.engine import DATABASE_FILE
from cloud.store.fleet_queries import device_ids, device_rows, fleet_summary
from cloud.store.queries import count_newer, judged_sample, verdict_page
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
    async with Store(folder) as store, store.reading() as connection:
        newest = (await verdict_page(connection, VerdictFilter())).rows[0]
        position = VerdictKey(newest.judged_at_s - 1000, 0)
    queries: dict[str, Query] = {
        "fleet_summary": lambda connection: fleet_summary(connection, alive_since_s=END_S - 30),
        "devices": device_rows,
        "device_ids": device_ids,
        "detail": lambda connection: judged_sample(connection, newest.sample_id),
        "detail_unknown": lambda connection: judged_sample(connection, uuid.UUID(int=7)),
        "page_older": lambda connection: verdict_page(connection, VerdictFilter(), before=position),
        "page_newer": lambda connection: verdict_page(connection, VerdictFilter(), after=position),
        "count_newer": lambda connection: count_newer(connection, VerdictFilter(), position),
        "count_newer_no_hit": lambda connection: count_newer(connection, FILTERS["no_hit_route"], position),
    }
    queries |= {name: _page_query(wanted) for name, wanted in FILTERS.items()}
    figures = {name: await _times(folder, query) for name, query in queries.items()}
    longest = max(figures, key=lambda name: figures[name]["median_ms"])
    return {"slowest": longest, "slowest_median_ms": figures[longest]["median_ms"], **figures}


def _page_query(wanted: VerdictFilter) -> Query:
    return lambda connection: verdict_page(connection, wanted)


async def _times(folder: Path, query: Query) -> dict[str, Any]:
    async with Store(folder) as store:
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

"""Time of each query of the console and its API on a generated store with millions of verdicts.

Filters "without a hit" match no row, and "rare" ones one row in 50,000. Each query runs in a transaction of its own, as
in a request; the first call, on a connection without cached plans and pages, is reported apart.
"""

import asyncio
import math
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection

from cloud.bench.large_store import device_name, prepare_store
from cloud.bench.large_store_rows import END_S, StoreContents
from cloud.bench.machine import machine
from cloud.console.api import MAX_DEVICES
from cloud.devices import read_devices
from cloud.settings import StoreLocation
from cloud.store import Store, open_store
from cloud.store.fleet_queries import device_ids, fleet_summary
from cloud.store.labels import Label
from cloud.store.queries import count_newer, judged_sample, verdict_page
from cloud.store.verdict_keys import VerdictFilter, VerdictKey
from cloud.training.progress import StageProgress
from shared.garbage import skip_loaded_objects
from shared.modality import Modality
from shared.samples import Decision, Route

REQUIRED_MS = 50.0
Query: TypeAlias = Callable[[AsyncConnection], Awaitable[Any]]

FILTERS = {
    "first page": VerdictFilter(),
    "device": VerdictFilter(device_id=device_name(7)),
    "decision": VerdictFilter(decision=Decision.ANOMALOUS),
    "route": VerdictFilter(route=Route.ALARM),
    "modality and decision": VerdictFilter(modality=Modality.IMAGE, decision=Decision.ANOMALOUS),
    "last hour and route": VerdictFilter(since_s=END_S - 3600, route=Route.AUDIT),
    "label": VerdictFilter(label=Label.FALSE_ALARM),
    "label and device": VerdictFilter(label=Label.REAL, device_id=device_name(0)),
    "rare decision": VerdictFilter(decision=Decision.UNDECIDED),
    "rare decision of a device": VerdictFilter(device_id=device_name(7), decision=Decision.UNDECIDED),
    "modality without a hit": VerdictFilter(modality=Modality.VIDEO),
    "route without a hit": VerdictFilter(route=Route.ACCEPT),
    "device and modality without a hit": VerdictFilter(device_id=device_name(0), modality=Modality.IMAGE),
    "time without a hit": VerdictFilter(until_s=1000.0),
    "text, frequent": VerdictFilter(text="part_"),
    "text, frequent, of a device": VerdictFilter(text="readings", device_id=device_name(7)),
    "text, frequent, rare decision": VerdictFilter(text="part_", decision=Decision.UNDECIDED),
    "text, a thousand origins": VerdictFilter(text="part_000123"),
    "text, one origin": VerdictFilter(text="readings.csv:4321"),
    "text, a source": VerdictFilter(text="line-13"),
    "text anywhere": VerdictFilter(text="*77.png"),
    "text without a hit": VerdictFilter(text="nothing has this name"),
    "text anywhere without a hit": VerdictFilter(text="*nothing has this name"),
    "text without a hit, decision": VerdictFilter(text="nothing", decision=Decision.ANOMALOUS),
}


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """`verdicts` of the store if it is to be made. `repeats`: calls of each query after the first one."""

    store_url: str
    folder: Path | None
    verdicts: int
    repeats: int
    command: str


def run_query_benchmark(options: QueryOptions, progress: StageProgress) -> dict[str, Any]:
    """Return figures and requirements. A folder or database that holds verdicts is measured as it is."""
    before = machine()
    with tempfile.TemporaryDirectory(prefix="vedette-bench-") as name:
        location = StoreLocation(options.folder or Path(name), options.store_url)
        progress("making the store", 0.0)
        prepare_store(location, StoreContents(options.verdicts))
        skip_loaded_objects()  # as the service does
        figures, verdicts = asyncio.run(_measure(location, options, progress))
    rows = [
        {
            "query": name,
            "figure": key,
            "required_ms": REQUIRED_MS,
            "measured_ms": times[key],
            "met": times[key] <= REQUIRED_MS,
        }
        for name, times in figures.items()
        for key in ("median_ms", "p99_ms")
    ]
    return {
        "command": options.command,
        "machine": before,
        "store": "PostgreSQL" if options.store_url else "SQLite",
        "verdicts": verdicts,
        "repeats": options.repeats,
        "requirements": rows,
        "figures": figures,
    }


async def _measure(
    location: StoreLocation, options: QueryOptions, progress: StageProgress
) -> tuple[dict[str, dict[str, float]], int]:
    async with open_store(location) as store, store.reading() as connection:
        newest = (await verdict_page(connection, VerdictFilter())).rows[0]
        decisions = (await fleet_summary(connection, alive_since_s=0.0)).decisions
    queries = _queries(newest.sample_id, VerdictKey(newest.judged_at_s - 1000, 0))
    figures = {}
    for place, (name, query) in enumerate(queries.items()):
        progress(name, place / len(queries))
        async with open_store(location) as store:  # a new connection, as after a start of the service
            figures[name] = await _times(store, query, options.repeats)
    return figures, sum(decisions.values())


def _queries(newest: uuid.UUID, position: VerdictKey) -> dict[str, Query]:
    everything, nothing = VerdictFilter(), FILTERS["route without a hit"]
    queries: dict[str, Query] = {
        "fleet summary": lambda connection: fleet_summary(connection, alive_since_s=END_S - 30),
        f"/api/devices, {MAX_DEVICES} devices": _device_query(MAX_DEVICES),
        "/api/devices, 100 devices": _device_query(100),
        "devices, choices of the filter": device_ids,
        "detail": lambda connection: judged_sample(connection, newest),
        "detail, unknown": lambda connection: judged_sample(connection, uuid.UUID(int=7)),
        "older page": lambda connection: verdict_page(connection, everything, before=position),
        "newer page": lambda connection: verdict_page(connection, everything, after=position),
        "count of newer": lambda connection: count_newer(connection, everything, position),
        "count of newer without a hit": lambda connection: count_newer(connection, nothing, position),
    }
    return queries | {name: _page_query(wanted) for name, wanted in FILTERS.items()}


def _device_query(size: int) -> Query:
    return lambda connection: read_devices(connection, now_s=END_S, late_after_s=60.0, size=size)


def _page_query(wanted: VerdictFilter) -> Query:
    return lambda connection: verdict_page(connection, wanted)


async def _times(store: Store, query: Query, repeats: int) -> dict[str, float]:
    """Return the times of a query in ms; the p99 of fewer than 100 calls is the longest.

    `cpu_ms` is the mean processor time of this process, in which SQLite runs.
    """
    times_ms = []
    cpu_before_s = time.process_time()
    for _ in range(1 + repeats):
        started_s = time.perf_counter()
        async with store.reading() as connection:
            await query(connection)
        times_ms.append(1000 * (time.perf_counter() - started_s))
    first_ms, *rest = times_ms
    cpu_ms = 1000 * (time.process_time() - cpu_before_s) / len(times_ms)
    p99_ms = sorted(rest)[math.ceil(0.99 * len(rest)) - 1]
    return {
        "first_ms": first_ms,
        "median_ms": statistics.median(rest),
        "p99_ms": p99_ms,
        "longest_ms": max(rest),
        "cpu_ms": cpu_ms,
    }

"""Retention benchmark: the longest wait of ingest while retention deletes old payloads and verdicts.

A generated store holds old rows and a tenth as many newer ones. Retention runs once while one small request after
another is stored, in one process, as in the service.
"""

import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import text

from cloud.bench.large_store import LABELLED, device_name, prepare_store
from cloud.bench.large_store_rows import StoreContents
from cloud.bench.machine import machine
from cloud.settings import StoreLocation
from cloud.store import Store, open_store
from cloud.store.ingest import Received, store_samples
from cloud.store.retention import remove_old
from cloud.training.progress import StageProgress
from shared.garbage import skip_loaded_objects
from shared.modality import Modality
from shared.samples import Route, Sample, Screening, new_sample_id
from vedette.v1 import sample_pb2

REQUIRED_MS = 100.0
REQUEST, GAP_S = 4, 0.02  # samples of a request, pause after it
IDLE_S = 10.0
_DAY_S, _MB = 86_400.0, 1e6


@dataclass(frozen=True, slots=True)
class RetentionOptions:
    """`rows`: old samples, each with a payload of `payload_bytes` and a verdict."""

    store_url: str
    rows: int
    payload_bytes: int
    command: str


def run_retention_benchmark(options: RetentionOptions, progress: StageProgress) -> dict[str, Any]:
    """Return figures and requirements. The database of `store_url` must be empty; raises SettingsError otherwise."""
    before = machine()
    with tempfile.TemporaryDirectory(prefix="vedette-bench-") as name:
        location = StoreLocation(Path(name), options.store_url)
        progress("making the store", 0.0)
        total = options.rows + options.rows // 10
        contents = StoreContents(
            total, waiting=0, with_payload=total, payload_bytes=options.payload_bytes, end_s=time.time(), step_s=1.0
        )
        prepare_store(location, contents)
        figures = asyncio.run(_measure(location, contents, options, progress))
    longest_ms = figures["beside_retention"]["longest_ms"]
    row = {"required_ms": REQUIRED_MS, "measured_ms": longest_ms, "met": longest_ms <= REQUIRED_MS}
    return {
        "command": options.command,
        "machine": before,
        "store": "PostgreSQL" if options.store_url else "SQLite",
        "rows": options.rows,
        "payload_bytes": options.payload_bytes,
        "requirements": [{"what": "longest request beside retention", **row}],
        "figures": figures,
    }


async def _measure(
    location: StoreLocation, contents: StoreContents, options: RetentionOptions, progress: StageProgress
) -> dict[str, Any]:
    async with open_store(location) as store:
        figures: dict[str, Any] = {"mb_before": await _size_mb(store, location)}
        skip_loaded_objects()  # as the service does
        progress("ingest alone", 0.0)
        figures["alone"] = await _ingest(store, asyncio.create_task(asyncio.sleep(IDLE_S)), options.payload_bytes)
        progress("ingest beside retention", 0.0)
        kept = contents.count - options.rows
        days = (time.time() - contents.end_s + kept * contents.step_s) / _DAY_S
        ages = {"payloads_days": days, "verdicts_days": days, "events_days": days}
        started_s = time.perf_counter()
        removal = asyncio.create_task(remove_old(store, **ages))
        figures["beside_retention"] = await _ingest(store, removal, options.payload_bytes)
        figures["retention_s"] = time.perf_counter() - started_s
        figures["removed"] = await removal
        figures["kept_for_labels"] = options.rows // LABELLED
        figures["mb_after"] = await _size_mb(store, location)
    return figures


async def _ingest(store: Store, other: asyncio.Task[Any], payload_bytes: int) -> dict[str, float]:
    """Store one request after another until `other` ends; return their times in ms."""
    times_ms = []
    while not other.done():
        received = [_received(payload_bytes) for _ in range(REQUEST)]
        started_s = time.perf_counter()
        await store_samples(store, device_name(0), received, time.time())
        times_ms.append(1000 * (time.perf_counter() - started_s))
        await asyncio.sleep(GAP_S)
    times_ms.sort()
    return {
        "requests": len(times_ms),
        "median_ms": statistics.median(times_ms),
        "p99_ms": times_ms[int(0.99 * len(times_ms))],
        "longest_ms": times_ms[-1],
    }


def _received(payload_bytes: int) -> Received:
    return Received(
        Sample(new_sample_id(), "line-1", Modality.TABULAR, time.time(), "row", np.zeros(3, dtype=np.float32)),
        Screening(1.0, 0.01, False, Route.FORWARD, "press-1-00000000", "cal", "int8", None),
        sample_pb2.Payload(shape=[3], data=bytes(payload_bytes)),
    )


async def _size_mb(store: Store, location: StoreLocation) -> float:
    """Return the size of the database in MB."""
    pages = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    query = "SELECT pg_database_size(current_database())" if location.url else pages
    async with store.reading() as connection:
        return float((await connection.execute(text(query))).scalar_one()) / _MB

"""Retention in the service's store: disk space before and after, and the longest wait of ingest beside it.

A store is filled with judged samples, 90 % of them older than `retention.payloads_days` and `retention.verdicts_days`.
Retention runs once while one request after another is ingested.

* `shrinkable` is a new store; `older_file` one whose file has no `auto_vacuum`, as made by earlier versions. Its free
  pages stay in the file until the service starts again and rewrites it (`converted`).
* `ingest_longest_ms` is the slowest request beside retention, `ingest_longest_ms_idle` the slowest without it.
* Samples ingested beside retention (`payload_mb_ingested_beside`) stay in the file.

The code before this page, measured once with the same program, a new store: file 266 MB filled and 288 MB after
retention, log 37.2 MB, slowest request 199 ms beside retention and 28 ms without it, retention 2.5 s.
"""

import asyncio
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert

from cloud.store import Store, open_store
from cloud.store.ingest import Received, store_samples
from cloud.store.judging import store_verdicts, waiting_samples
from cloud.store.migrate import migrate
from cloud.store.retention import remove_old
from cloud.store.schema import devices
from cloud.store.sqlite.store import DATABASE_FILE
from shared.modality import Modality
from shared.samples import Decision, Route, Sample, Screening, Verdict, new_sample_id
from vedette.v1 import sample_pb2

SAMPLES, PAYLOAD_BYTES = 4000, 65_536
REQUEST = 50  # samples of one request while filling
BESIDE = 4  # samples of one request beside retention
OLD_SHARE, OLD_S = 0.9, 400 * 86_400.0
GAP_S, IDLE_S = 0.02, 2.0
_MB = 1e6


def run(quick: bool = False) -> dict[str, Any]:
    """Return sizes in MB and times in ms of both kinds of store."""
    samples = SAMPLES // 10 if quick else SAMPLES
    return {
        "samples": samples,
        "payload_bytes": PAYLOAD_BYTES,
        "shrinkable": _measure(samples, older_file=False),
        "older_file": _measure(samples, older_file=True),
    }


def _measure(samples: int, *, older_file: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        migrate(folder)
        if older_file:
            with closing(sqlite3.connect(folder / DATABASE_FILE, isolation_level=None)) as connection:
                connection.execute("PRAGMA auto_vacuum = NONE")
                connection.execute("VACUUM")
        figures = asyncio.run(_fill_and_remove(folder, samples))
        if older_file:
            started_s = time.perf_counter()
            migrate(folder)
            figures["converted_in_s"] = time.perf_counter() - started_s
            figures["file_mb_converted"] = _sizes(folder)[0]
        return figures


async def _fill_and_remove(folder: Path, samples: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    async with open_store(folder) as store:
        async with store.writing() as connection:
            row = {"device_id": "one", "enrolled_at_s": 0.0, "certificate_serial": "1", "certificate_expires_at_s": 9e9}
            await connection.execute(insert(devices), [row])
        for start in range(0, samples, REQUEST):
            await store_samples(store, "one", _received(min(REQUEST, samples - start)), time.time())
            age_s = OLD_S if start < OLD_SHARE * samples else 0.0
            judged = [(waiting, _verdict(waiting, age_s)) for waiting in await waiting_samples(store, REQUEST)]
            await store_verdicts(store, judged)
        figures["file_mb_filled"], figures["log_mb_filled"] = _sizes(folder)
        figures["ingest_longest_ms_idle"], _ = await _ingest(store, asyncio.create_task(asyncio.sleep(IDLE_S)))
        started_s = time.perf_counter()
        removal = asyncio.create_task(remove_old(store, payloads_days=30, verdicts_days=365, events_days=14))
        figures["ingest_longest_ms"], figures["payload_mb_ingested_beside"] = await _ingest(store, removal)
        figures["retention_s"] = time.perf_counter() - started_s
        figures["payloads_removed"] = (await removal)["payloads"]
        figures["file_mb_after_retention"], figures["log_mb_after_retention"] = _sizes(folder)
    return figures


async def _ingest(store: Store, other: asyncio.Task[Any]) -> tuple[float, float]:
    """Ingest one request after another until `other` ends; return the longest time in ms and the payloads in MB."""
    longest_s, payload_bytes = 0.0, 0
    while not other.done():
        received = _received(BESIDE)
        started_s = time.perf_counter()
        await store_samples(store, "one", received, time.time())
        longest_s = max(longest_s, time.perf_counter() - started_s)
        payload_bytes += BESIDE * PAYLOAD_BYTES
        await asyncio.sleep(GAP_S)
    return 1e3 * longest_s, payload_bytes / _MB


def _received(count: int) -> list[Received]:
    payload = sample_pb2.Payload(shape=[3], data=bytes(PAYLOAD_BYTES))
    values = np.zeros(3, dtype=np.float32)
    return [
        Received(
            Sample(new_sample_id(), "lab", Modality.TABULAR, time.time(), "row", values),
            Screening(1.0, 0.01, False, Route.FORWARD, "press-1-00000000", "cal", "int8", None),
            payload,
        )
        for _ in range(count)
    ]


def _verdict(waiting: Any, age_s: float) -> Verdict:
    return Verdict(
        sample_id=waiting.sample_id,
        decision=Decision.ANOMALOUS,
        p_value=0.001,
        extrapolated=False,
        opinions=(),
        bundle_id="press-1-00000000",
        judged_at_s=time.time() - age_s,
    )


def _sizes(folder: Path) -> tuple[float, float]:
    """Return the sizes of the file and of its write-ahead log in MB."""
    log = folder / f"{DATABASE_FILE}-wal"
    return (folder / DATABASE_FILE).stat().st_size / _MB, log.stat().st_size / _MB if log.exists() else 0.0

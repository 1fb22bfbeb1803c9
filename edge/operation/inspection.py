"""What `vedette edge status` and `vedette edge spool` show, read from beside the running agent."""

import json
import sqlite3
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.errors import DataError, StorageError

STATUS_FILE = "status.json"
_TIMEOUT_S = 2.0


def read_status(state_dir: Path) -> dict[str, Any]:
    """The agent's status: from itself if it answers, else as it wrote it last. `live` says which.

    Raises DataError if no agent has run here.
    """
    path = state_dir / STATUS_FILE
    try:
        written: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise DataError(
            f"{path}: no status. Has an agent run with this state_dir? vedette edge run starts one."
        ) from None
    address = written.get("metrics_address")
    if address:
        try:
            # A plain opener: a proxy named in the environment has nothing to do with this machine's own port.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://{address}/status", timeout=_TIMEOUT_S) as response:
                live: dict[str, Any] = json.loads(response.read())
            if live.get("process_id") == written.get("process_id"):
                return live | {"live": True}
        except (OSError, ValueError, urllib.error.URLError):
            pass
    return written | {"live": False}


def status_lines(facts: dict[str, Any]) -> Iterator[str]:
    """The status in a few lines for people."""
    age_s = max(0.0, time.time() - float(facts["written_at_s"]))
    yield f"device   {facts['device_id'] or '(not enrolled)'}"
    yield f"agent    {'running' if facts['live'] else f'as of {age_s:.0f} s ago'}, process {facts['process_id']}"
    link = facts["link"]
    yield f"link     {link_words(facts) if link['connected'] else 'down: ' + link['error']}"
    for name, source in facts["sources"].items():
        bundle = f"{source['bundle_id']} ({source['artefact']})" if source["bundle_id"] else "no bundle"
        state = source["state"] if source["health"] == "running" else source["health"]
        lost = f", {source['reconnects']} times sought again" if source["reconnects"] else ""
        yield f"source   {name}: {state}, {bundle}{lost}{' - ' + source['error'] if source['error'] else ''}"
    counts = facts["counters"]
    yield (
        f"samples  {counts['samples_screened']} screened, {counts['samples_forwarded']} forwarded, "
        f"{counts['samples_audited']} audited, {counts['samples_alarmed']} alarms, "
        f"{counts['samples_rejected']} rejected"
    )
    spool = facts["spool"]
    yield f"spool    {spool['samples']} samples, {spool['bytes']} bytes, {spool['dropped']} dropped so far"
    yield f"verdicts {counts['verdicts']} received, {facts['verdicts']['awaited']} awaited"
    for name, sink in facts.get("alarms", {}).items():
        error = f" - {sink['error']}" if sink["error"] else ""
        yield f"alarms   to {name}: {sink['waiting']} waiting{error}"
    for name, latency in facts["latency_ms"].items():
        if latency["p50"] is not None:
            yield f"latency  {name}: p50 {latency['p50']} ms, p99 {latency['p99']} ms"
    for problem in facts["problems"]:
        yield f"problem  {problem}"


def link_words(facts: dict[str, Any]) -> str:
    """Where an agent is connected to, how fast that is as far as it is known, and what is done about it."""
    link, budget = facts["link"], facts.get("budget", {})
    words = [f"connected to {link['address']}"]
    if link.get("round_trip_ms"):
        words.append(f"answers in {link['round_trip_ms']:,} ms")
    if link.get("throughput_bytes_per_s"):
        words.append(f"carries {link['throughput_bytes_per_s'] / 1000:,.1f} kB/s")
    if budget.get("bytes_per_s"):
        words.append(f"budget {budget['bytes_per_s'] / 1000:,.1f} kB/s")
    return ", ".join(words)


def spool_lines(state_dir: Path, limit: int) -> Iterator[str]:
    """The spool in a few lines: size, the most suspicious samples, and those refused.

    Raises StorageError if it cannot be read.
    """
    path = state_dir / "spool.db"
    if not path.exists():
        raise StorageError(f"{path}: no spool. Has an agent run with this state_dir? vedette edge run starts one.")
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_TIMEOUT_S)
        try:
            yield from _describe(connection, limit)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StorageError(
            f"{path}: cannot be read ({error}). The agent sets a damaged spool aside at start."
        ) from None


def _describe(connection: sqlite3.Connection, limit: int) -> Iterator[str]:
    count, size, oldest_s = connection.execute(
        "SELECT COUNT(*), COALESCE(SUM(size_bytes), 0), "
        "(SELECT spooled_at_s FROM samples ORDER BY seq LIMIT 1) FROM samples"
    ).fetchone()
    age = f", the oldest {max(0.0, time.time() - oldest_s):.0f} s old" if oldest_s is not None else ""
    yield f"{count} samples wait, {size} bytes{age}"
    rows = connection.execute(
        "SELECT sample_id, priority, size_bytes FROM samples ORDER BY priority, seq LIMIT ?", (limit,)
    )
    for sample_id, priority, size_bytes in rows:
        yield f"  {uuid.UUID(bytes=sample_id)}  priority {priority:.3g}  {size_bytes} bytes"
    refused = connection.execute("SELECT COUNT(*) FROM refused").fetchone()[0]
    yield f"{refused} samples set aside because the service refused them"
    for sample_id, reason in connection.execute(
        "SELECT sample_id, reason FROM refused ORDER BY seq DESC LIMIT ?", (limit,)
    ):
        yield f"  {uuid.UUID(bytes=sample_id)}  {reason}"

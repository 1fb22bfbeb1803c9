"""Status and spool of a device as text, for `vedette edge status` and `vedette edge spool`."""

import contextlib
import sqlite3
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

from shared.errors import StorageError
from shared.status import AgentStatus, MissStatus, ObservedStatus, RepeatStatus, SourceStatus, read_status_file
from shared.texts import at_most_percent

_TIMEOUT_S = 2.0


def read_status(state_dir: Path) -> ObservedStatus:
    """Return the status that the agent reports itself, or else the one that it wrote last.

    Raises DataError if no agent has run with this state directory.
    """
    written = read_status_file(state_dir)
    if written.metrics_address:
        with contextlib.suppress(OSError, ValueError, urllib.error.URLError):
            # Without proxies: the address is a port of this machine.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://{written.metrics_address}/status", timeout=_TIMEOUT_S) as response:
                live = AgentStatus.model_validate_json(response.read())
            if live.process_id == written.process_id:
                return ObservedStatus(**dict(live), live=True)
    return ObservedStatus(**dict(written), live=False)


def status_lines(status: ObservedStatus) -> Iterator[str]:
    """Yield the status as a few lines of text."""
    age_s = max(0.0, time.time() - status.written_at_s)
    yield f"device   {status.device_id or '(not enrolled)'}"
    agent = "running" if status.live else f"does not answer; this was its status {age_s:.0f} s ago"
    yield f"agent    {agent}, process {status.process_id}"
    yield f"link     {link_text(status) if status.link.connected else 'down: ' + status.link.error}"
    if (left_s := status.link.pause_until_s - time.time()) > 0 and status.live:
        yield f"waits    {left_s:.0f} s more, as the service asked: {status.link.pause_reason}"
    if status.group_settings.given():
        yield f"group    {status.group_settings.words()}"
    for name, source in status.sources.items():
        bundle = f"{source.bundle_id} ({source.artefact})" if source.bundle_id else "no bundle"
        reconnects = f", {source.reconnects} reconnects" if source.reconnects else ""
        error = f" - {source.error}" if source.error else ""
        left_out = "".join(f", {count} left out: {reason}" for reason, count in source.left_out.items())
        yield f"source   {name}: {source_state(source)}, {bundle}{reconnects}{left_out}{error}"
        if source.missed is not None:
            yield f"misses   {name}: {miss_text(source.missed)}"
            if source.missed.limit_words:
                yield f"limit    {name}: {source.missed.limit_words}"
        if source.repeats is not None and source.repeats.is_on:
            yield f"repeats  {name}: {repeat_text(source.repeats)}"
    counts = status.counters
    yield (
        f"samples  {counts.samples_screened} screened, {counts.samples_forwarded} forwarded, "
        f"{counts.samples_audited} audited, {counts.samples_alarmed} alarms, {counts.samples_rejected} rejected"
    )
    if counts.samples_held:
        yield f"held     {counts.samples_held} {held_reason(status)}"
    yield f"spool    {status.spool.samples} samples, {status.spool.bytes} bytes, {status.spool.dropped} dropped so far"
    yield f"verdicts {counts.verdicts} received, {status.verdicts.awaited} awaited"
    for name, sink in status.alarms.items():
        yield f"alarms   to {name}: {sink.waiting} waiting{f' - {sink.error}' if sink.error else ''}"
    if status.link.address:
        yield f"live     {live_view_text(status)}"
    for name, latency in status.latency_ms.items():
        if latency.p50 is not None:
            yield f"latency  {name}: p50 {latency.p50} ms, p99 {latency.p99} ms"
    for problem in status.problems:
        yield f"problem  {problem}"


def source_state(source: SourceStatus) -> str:
    """Return the state of the source itself, that of its pipeline while the source runs, or that of its stream."""
    state = source.state if source.health == "running" else source.health
    return "differs from training" if state == "running" and source.finding else state


def miss_text(missed: MissStatus) -> str:
    """Return the bound on missed anomalies, and the audits that it rests on."""
    waiting = f", {missed.pending} wait for their verdict" if missed.pending else ""
    if missed.at_most_share is None:
        return f"unknown, no audit has a verdict{waiting}"
    found = f"{missed.anomalous} of them anomalous" if missed.anomalous else "none of them anomalous"
    unknown = f", {missed.unknown} without a decision count as anomalous" if missed.unknown else ""
    bound = at_most_percent(missed.at_most_share)
    share = f"at most {bound} % of the accepted samples so far (95 %)"
    return f"{share}, from {missed.audits} audits, {found}{unknown}{waiting}"


def repeat_text(repeats: RepeatStatus) -> str:
    """Return the number of near copies that stayed, and of the samples that they are compared with."""
    if not repeats.is_ready:
        return "all travel, too few accepted samples are known to compare with"
    known = f"{repeats.condemned} anomalous, {repeats.cleared} normal, {repeats.waiting} without a verdict"
    return f"{repeats.held} near copies stayed since the start; samples remembered: {known}"


def live_view_text(status: AgentStatus) -> str:
    """Return how many samples were shown to people, the last viewer, and whether live views are permitted."""
    counts = status.counters
    last = f", the last to {status.last_viewer}" if status.last_viewer else ""
    permitted = "" if status.permits_live_views else "; live views are not permitted here"
    return f"{counts.live_views} samples shown to people{last}, {counts.live_views_refused} refused{permitted}"


def held_reason(status: AgentStatus) -> str:
    """Return why suspicious samples stayed on the device."""
    reason = "mode edge_only" if status.mode == "edge_only" else "budget"
    return f"suspicious, kept here: {reason}"


def link_text(status: AgentStatus) -> str:
    """Return address, round trip, throughput and budget of a connection, as far as they are known."""
    link = status.link
    parts = [f"connected to {link.address}"]
    if link.round_trip_ms:
        parts.append(f"answers in {link.round_trip_ms:,} ms")
    if link.throughput_bytes_per_s:
        parts.append(f"carries {link.throughput_bytes_per_s / 1000:,.1f} kB/s")
    if status.budget.bytes_per_s:
        parts.append(f"budget {status.budget.bytes_per_s / 1000:,.1f} kB/s")
    return ", ".join(parts)


def spool_lines(state_dir: Path, limit: int) -> Iterator[str]:
    """Yield the size of the spool, its `limit` most suspicious samples, and the last refused ones.

    Raises StorageError if the spool cannot be read.
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

"""Live page of `vedette edge status --watch`."""

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge.operation.inspection import held_reason, link_text, miss_text, read_status, source_state
from shared.errors import DataError
from shared.status import AgentStatus, ObservedStatus

REFRESH_S = 1.0
_RATES = (
    ("screened", "samples_screened"),
    ("forwarded", "samples_forwarded"),
    ("audited", "samples_audited"),
    ("alarms", "samples_alarmed"),
    ("rejected", "samples_rejected"),
    ("verdicts", "verdicts"),
)


def watch(state_dir: Path, console: Console, goes_on: Callable[[], bool] = lambda: True) -> None:
    """Draw the status every REFRESH_S seconds until Ctrl-C; raises DataError if no agent has run here."""
    status, seen_s = read_status(state_dir), time.monotonic()
    before = status
    with Live(page(status, before, 0.0), console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while goes_on():
            time.sleep(REFRESH_S)
            before, since_s = status, seen_s
            try:
                status, seen_s = read_status(state_dir), time.monotonic()
            except DataError:  # the folder was removed: show the last status as old
                status = status.model_copy(update={"live": False})
            live.update(page(status, before, seen_s - since_s), refresh=True)


def page(status: ObservedStatus, before: ObservedStatus, seconds: float) -> RenderableType:
    """Return the page of a status, with rates since the status `before`, `seconds` ago."""
    blocks: list[RenderableType] = [_head(status), _counts(status, before, seconds), _sources(status), _queues(status)]
    problems = [Text(f"! {problem}", style="bold red") for problem in status.problems]
    blocks += problems or [Text("No problems." if status.live else "", style="green")]
    return Group(*blocks)


def _head(status: ObservedStatus) -> Text:
    head = Text(f"{status.device_id or 'not enrolled'}   ", style="bold")
    if status.live:
        head.append(f"running, process {status.process_id}", style="green")
    else:
        age_s = max(0.0, time.time() - status.written_at_s)
        head.append(f"does not answer; as of {age_s:.0f} s ago", style="bold red")
    if status.link.connected:
        head.append(f"   {link_text(status)}", style="green")
    else:
        head.append(f"   no link: {status.link.error}", style="yellow")
    return head


def _counts(status: AgentStatus, before: AgentStatus, seconds: float) -> Table:
    table = Table(title="Samples", title_justify="left", expand=False)
    for name, _ in _RATES:
        table.add_column(name, justify="right")
    counts, earlier = status.counters, before.counters
    table.add_row(*(f"{getattr(counts, field):,}" for _, field in _RATES))
    if seconds > 0:
        rates = ((getattr(counts, field) - getattr(earlier, field)) / seconds for _, field in _RATES)
        table.add_row(*(f"{max(0.0, rate):,.1f} /s" for rate in rates), style="dim")
    return table


def _sources(status: AgentStatus) -> Table:
    table = Table(title="Sources", title_justify="left", expand=False)
    for name in ("source", "state", "bundle", "artefact", "reconnects", "skipped", "missed", ""):
        table.add_column(name, justify="right" if name in ("reconnects", "skipped") else "left")
    for name, source in status.sources.items():
        state = source_state(source)
        table.add_row(
            name,
            Text(state, style="green" if state == "running" else "dim" if state == "ended" else "bold yellow"),
            source.bundle_id or "none yet",
            source.artefact,
            f"{source.reconnects:,}",
            f"{source.skipped:,}",
            "" if source.missed is None else miss_text(source.missed).partition(",")[0],
            Text(source.error, style="yellow"),
        )
    return table


def _queues(status: AgentStatus) -> Table:
    table = Table(title="Waiting", title_justify="left", expand=False)
    for name in ("for", "count", ""):
        table.add_column(name, justify="right" if name == "count" else "left")
    spool = status.spool
    size = f"{spool.bytes / 2**20:,.1f} MiB, {spool.dropped:,} dropped so far"
    table.add_row("the link", f"{spool.samples + spool.pending:,}", spool.error or size)
    if status.counters.samples_held:
        table.add_row("", f"{status.counters.samples_held:,}", held_reason(status))
    if status.counters.samples_reduced:
        table.add_row("", f"{status.counters.samples_reduced:,}", "sent in a smaller form so far")
    table.add_row("a verdict", f"{status.verdicts.awaited:,}", _latency(status, "sample_to_verdict"))
    for name, sink in status.alarms.items():
        table.add_row(f"alarms to {name}", f"{sink.waiting:,}", Text(sink.error, style="yellow"))
    table.add_row("the screener", "", _latency(status, "screen"))
    return table


def _latency(status: AgentStatus, stage: str) -> str:
    latency = status.latency_ms.get(stage)
    if latency is None or latency.p50 is None:
        return ""
    return f"p50 {latency.p50:,} ms, p99 {latency.p99:,} ms"

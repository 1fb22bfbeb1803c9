"""What `vedette edge status --watch` shows: the agent's status as a page that is drawn again and again."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge.operation.inspection import link_words, read_status
from shared.errors import DataError

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
    """Draw the status each REFRESH_S until Ctrl-C. Raises DataError if no agent has run here."""
    facts, seen_s = read_status(state_dir), time.monotonic()
    before = facts
    with Live(page(facts, before, 0.0), console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while goes_on():
            time.sleep(REFRESH_S)
            before, since_s = facts, seen_s
            try:
                facts, seen_s = read_status(state_dir), time.monotonic()
            except DataError:  # its folder was removed; what was seen last is shown as such
                facts = {**facts, "live": False}
            live.update(page(facts, before, seen_s - since_s), refresh=True)


def page(facts: dict[str, Any], before: dict[str, Any], seconds: float) -> RenderableType:
    """The status `facts`, with rates since the status `before`, `seconds` ago."""
    parts: list[RenderableType] = [_head(facts), _counts(facts, before, seconds), _sources(facts), _queues(facts)]
    problems = [Text(f"! {problem}", style="bold red") for problem in facts["problems"]]
    parts += problems or [Text("No problems." if facts["live"] else "", style="green")]
    return Group(*parts)


def _head(facts: dict[str, Any]) -> Text:
    link, age_s = facts["link"], time.time() - float(facts["written_at_s"])
    head = Text(f"{facts['device_id'] or 'not enrolled'}   ", style="bold")
    if facts["live"]:
        head.append(f"running, process {facts['process_id']}", style="green")
    else:
        head.append(f"does not answer; as it was {age_s:.0f} s ago", style="bold red")
    if link["connected"]:
        head.append(f"   {link_words(facts)}", style="green")
    else:
        head.append(f"   no link: {link['error']}", style="yellow")
    return head


def _counts(facts: dict[str, Any], before: dict[str, Any], seconds: float) -> Table:
    table = Table(title="Samples", title_justify="left", expand=False)
    for name, _ in _RATES:
        table.add_column(name, justify="right")
    counts, earlier = facts["counters"], before["counters"]
    table.add_row(*(f"{counts[key]:,}" for _, key in _RATES))
    if seconds > 0:
        rates = ((counts[key] - earlier[key]) / seconds for _, key in _RATES)
        table.add_row(*(f"{max(0.0, rate):,.1f} /s" for rate in rates), style="dim")
    return table


def _sources(facts: dict[str, Any]) -> Table:
    table = Table(title="Sources", title_justify="left", expand=False)
    for name in ("source", "state", "bundle", "artefact", "sought again", "skipped", ""):
        table.add_column(name, justify="right" if name in ("sought again", "skipped") else "left")
    for name, source in facts["sources"].items():
        state = source["state"] if source["health"] == "running" else source["health"]
        table.add_row(
            name,
            Text(state, style="green" if state == "running" else "dim" if state == "ended" else "bold yellow"),
            source["bundle_id"] or "none yet",
            source["artefact"],
            f"{source['reconnects']:,}",
            f"{source['skipped']:,}",
            Text(source["error"], style="yellow"),
        )
    return table


def _queues(facts: dict[str, Any]) -> Table:
    table = Table(title="Waiting", title_justify="left", expand=False)
    for name in ("for", "how many", ""):
        table.add_column(name, justify="right" if name == "how many" else "left")
    spool = facts["spool"]
    about = f"{spool['bytes'] / 2**20:,.1f} MiB, {spool['dropped']:,} dropped so far"
    table.add_row("the link", f"{spool['samples'] + spool['pending']:,}", spool["error"] or about)
    if facts["counters"].get("samples_reduced"):
        table.add_row("", f"{facts['counters']['samples_reduced']:,}", "went as JPEG, as a part or as a preview so far")
    table.add_row("a verdict", f"{facts['verdicts']['awaited']:,}", _latency(facts, "sample_to_verdict"))
    for name, sink in facts.get("alarms", {}).items():
        table.add_row(f"alarms to {name}", f"{sink['waiting']:,}", Text(sink["error"], style="yellow"))
    table.add_row("the screener", "", _latency(facts, "screen"))
    return table


def _latency(facts: dict[str, Any], name: str) -> str:
    latency = facts["latency_ms"][name]
    return "" if latency["p50"] is None else f"p50 {latency['p50']:,} ms, p99 {latency['p99']:,} ms"

"""Output of the demo while it runs: a live table on a terminal, a line every few seconds elsewhere."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Group
from rich.live import Live
from rich.text import Text

from cloud.demo.streams import DevicePlan
from shared.status import AgentStatus
from shared.terminal import fitting_tables, new_console, print_table

LINE_EVERY_S = 10.0
STATE_COLUMNS = (
    "device",
    "screened",
    "forwarded",
    "audited",
    "verdicts",
    "spool",
    "uploaded",
    "of all bytes",
    "link",
    "bundle",
)
SUMMARY_COLUMNS = (
    "device",
    "screened",
    "sent",
    "of all bytes",
    "lost",
    "AUROC edge",
    "AUROC cloud",
    "recall",
    "false alarms",
    "verdict after",
)


class Screen:
    """Display of the state of every device; `headless` prints plain lines even on a terminal."""

    def __init__(self, plans: Sequence[DevicePlan], *, headless: bool) -> None:
        self._console = new_console()
        self._plans = plans
        self._live = (
            None if headless or not self._console.is_terminal else Live(console=self._console, auto_refresh=False)
        )
        self._last_line_s = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    @property
    def is_live(self) -> bool:
        """Whether the output is a live table on a terminal."""
        return self._live is not None

    def show_summary(self, summary: Mapping[str, Any]) -> None:
        """Print the final result as a table, one device per line."""
        print_table(self._console, "Figures of the demo", SUMMARY_COLUMNS, summary_rows(summary))

    def print_line(self, text: str) -> None:
        """Print one line on the current step above the table."""
        self._console.print(text, soft_wrap=self._live is None)

    def show(self, statuses: Mapping[str, AgentStatus], elapsed_s: float, seconds: float) -> None:
        """Draw the newest states of the devices."""
        if self._live is not None:
            self._live.update(self._state(statuses, elapsed_s, seconds), refresh=True)
        elif time.monotonic() - self._last_line_s >= LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            self.print_line(f"  {elapsed_s:4.0f} s  " + "  ".join(self._brief(plan, statuses) for plan in self._plans))

    def _brief(self, plan: DevicePlan, statuses: Mapping[str, AgentStatus]) -> str:
        status = statuses.get(plan.device_id)
        if status is None:
            return f"{plan.device_id}: starting"
        counters = status.counters
        return f"{plan.device_id}: {counters.samples_screened} screened, {counters.samples_sent} sent"

    def _state(self, statuses: Mapping[str, AgentStatus], elapsed_s: float, seconds: float) -> Group:
        """Return the state of all devices, in several tables where the terminal is narrow."""
        starting = ["starting", *[""] * (len(STATE_COLUMNS) - 2)]
        rows: list[list[str | Text]] = []
        for plan in self._plans:
            status = statuses.get(plan.device_id)
            rows.append([plan.device_id, *(_cells(status) if status is not None else starting)])
        words = [0, len(STATE_COLUMNS) - 2, len(STATE_COLUMNS) - 1]
        tables, _ = fitting_tables(STATE_COLUMNS, rows, self._console.width, left=words)
        return Group(Text(f"Vedette, {elapsed_s:.0f} of {seconds:.0f} s", style="italic"), *tables)


def summary_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of the final result, one device per row, with the columns of SUMMARY_COLUMNS."""
    return [
        [
            name,
            f"{figures['samples_screened']:,}",
            f"{figures['samples_forwarded'] + figures['samples_audited']:,}",
            _percent(figures["upload_ratio"]),
            f"{figures['samples_lost']}",
            _number(figures["edge_auroc"]),
            _number(figures["fused_auroc"]),
            _percent(figures["cascade_recall"]),
            _percent(figures["false_alarm_rate"]),
            _seconds(figures["sample_to_verdict_ms"]["p50"]),
        ]
        for name, figures in [*summary["devices"].items(), ("all", summary["total"])]
    ]


def _cells(status: AgentStatus) -> tuple[str | Text, ...]:
    counters = status.counters
    screened, uploaded = counters.bytes_screened, counters.bytes_uploaded
    return (
        f"{counters.samples_screened:,}",
        f"{counters.samples_forwarded:,}",
        f"{counters.samples_audited:,}",
        f"{counters.verdicts:,}",
        f"{status.spool.samples:,}",
        f"{uploaded / 1000:,.0f} kB",
        _percent(uploaded / screened if screened else None),
        Text("up", style="green") if status.link.connected else Text("down", style="yellow"),
        ", ".join(source.bundle_id or "waiting" for source in status.sources.values()),
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _seconds(value_ms: float | None) -> str:
    return "-" if value_ms is None else f"{value_ms / 1000:.2f} s"

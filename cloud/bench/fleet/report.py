"""Terminal tables of the fleet benchmark."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from shared.terminal import new_console, print_table


def show_fleet(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print figures, requirements, and a sentence for each requirement that is missed."""
    console = console if console is not None else new_console()
    phases = summary["figures"]
    cells = {phase: _cells(figures) for phase, figures in phases.items()}
    names = list(next(iter(cells.values())))
    rows = [[name, *(cells[phase][name] for phase in phases)] for name in names]
    title = f"{summary['devices']} devices, {summary['rate']:g} samples a second each, {summary['seconds']:g} s"
    print_table(console, title, ["figure", *phases], rows)
    rows = [
        [row["what"], row["phase"], f"at most {_text(row['required'], row['unit'])}", _measured(row), _met(row)]
        for row in summary["requirements"]
    ]
    print_table(console, "Requirements", ["figure", "devices", "required", "measured", "met"], rows, left=(0, 1))
    for row in summary["requirements"]:
        if not row["met"]:
            sentence = f"Missed, {row['phase']}: {row['what']} is {_measured(row)}; at most "
            console.print(f"{sentence}{_text(row['required'], row['unit'])} is required.", style="red", markup=False)
    if all(row["met"] for row in summary["requirements"]):
        console.print("All requirements are met.", markup=False)
    facts = summary["machine"]
    console.print(
        f"Devices and service share {facts['cores']} cores; the load before the run was {facts['load_before']}.",
        style="dim",
        markup=False,
    )


def _cells(figures: Mapping[str, Any]) -> dict[str, str]:
    acknowledged, verdict = figures["acknowledged_ms"], figures["verdict_ms"]
    return {
        "honest devices": str(figures["honest_devices"]),
        "hostile devices": str(figures["hostile_devices"]),
        "samples": f"{figures['samples']:,}",
        "acknowledged a second": f"{figures['samples_a_second']:,.0f}",
        "not acknowledged": f"{figures['not_acknowledged']:,}",
        "acknowledged, without a verdict": f"{figures['lost']:,}",
        "to the acknowledgement, p50": _text(acknowledged["p50"], "ms"),
        "to the acknowledgement, p99": _text(acknowledged["p99"], "ms"),
        "to the verdict, p50": _text(verdict["p50"], "ms"),
        "to the verdict, p99": _text(verdict["p99"], "ms"),
        "memory, start": _text(figures["resident_start_mib"], "MiB"),
        "memory, end": _text(figures["resident_end_mib"], "MiB"),
        "memory, peak": _text(figures["resident_peak_mib"], "MiB"),
        "cores used by the service": f"{figures['service_cores']:.2f}",
        "cores used by the devices": f"{figures['client_cores']:.2f}",
    }


def _measured(row: Mapping[str, Any]) -> str:
    return _text(row["measured"], row["unit"])


def _met(row: Mapping[str, Any]) -> str:
    return "yes" if row["met"] else "no"


def _text(value: float | None, unit: str) -> str:
    if value is None:
        return "no value"
    text = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    return f"{text} {unit}" if unit else text

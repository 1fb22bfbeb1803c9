"""Terminal tables of the service's benchmarks."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from shared.terminal import new_console, print_table


def show_ingest(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print rates and ratios, and a sentence for each requirement that is missed."""
    console = console if console is not None else new_console()
    header = [
        "samples",
        "echo, requests/s",
        "service, requests/s",
        "service, samples/s",
        "echo, CPU µs/sample",
        "service, CPU µs/sample",
        "p50 ms",
        "p99 ms",
    ]
    rows = [
        [
            name,
            f"{figure['echo']['requests_a_second']:,.0f}",
            f"{figure['service']['requests_a_second']:,.0f}",
            f"{figure['service']['samples_a_second']:,.0f}",
            f"{figure['echo']['cpu_us_a_sample']:.1f}",
            f"{figure['service']['cpu_us_a_sample']:.1f}",
            f"{figure['service']['p50_ms']:.1f}",
            f"{figure['service']['p99_ms']:.1f}",
        ]
        for name, figure in summary["figures"].items()
    ]
    print_table(console, f"Ingest, {summary['clients']} clients, {summary['store']}", header, rows)
    show_requirements(summary, console)


def show_analysis(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print rates and ratios, and a sentence for each requirement that is missed."""
    console = console if console is not None else new_console()
    header = ["samples", "bare loop, samples/s", "at batch size", "service, samples/s"]
    header += ["CPU us a sample, bare", "CPU us a sample, service"]
    rows = [
        [
            name,
            f"{figure['bare_samples_a_second']:,.1f}",
            str(figure["bare_batch_size"]),
            f"{figure['service_samples_a_second']:,.1f}",
            f"{figure['bare_cpu_us_a_sample']:,.0f}",
            f"{figure['service_cpu_us_a_sample']:,.0f}",
        ]
        for name, figure in summary["figures"].items()
    ]
    print_table(console, "Analysis", header, rows)
    show_requirements(summary, console)


def show_replicas(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the samples a second, and the milliseconds of a call with one sample, of each side."""
    console = console if console is not None else new_console()
    rows = [
        [name, side.replace("_", " "), f"{rate:,.1f}", f"{figure['single_call_ms'][side]:.2f}"]
        for name, figure in summary["figures"].items()
        for side, rate in figure["samples_a_second"].items()
    ]
    print_table(console, "Replicas", ["samples", "judged by", "samples/s", "one sample, ms"], rows)


def show_requirements(summary: Mapping[str, Any], console: Console) -> None:
    """Print each requirement with its measurement, and say which are missed."""
    rows = [
        [row["samples"], row["what"], f"at least {row['required']:g}", f"{row['measured']:.2f}", _met(row)]
        for row in summary["requirements"]
    ]
    print_table(console, "Requirements", ["samples", "figure", "required", "measured", "met"], rows, left=(0, 1))
    for row in summary["requirements"]:
        if not row["met"]:
            console.print(
                f"Missed: {row['samples']}, {row['what']}: {row['measured']:.2f} of at least {row['required']:g}.",
                style="red",
                markup=False,
            )


def _met(row: Mapping[str, Any]) -> str:
    return "yes" if row["met"] else "no"

"""Terminal tables of the benchmarks of the store."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from shared.terminal import new_console, print_table


def show_queries(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the times of each query, and a sentence for each requirement that is missed."""
    console = console if console is not None else new_console()
    names = ("median_ms", "p99_ms", "longest_ms", "first_ms", "cpu_ms")
    rows = [[query, *(f"{times[name]:.1f}" for name in names)] for query, times in summary["figures"].items()]
    title = f"Queries, {summary['store']}, {summary['verdicts']:,} verdicts"
    print_table(console, title, ["query", "median ms", "p99 ms", "longest ms", "first ms", "CPU ms"], rows)
    missed = [row for row in summary["requirements"] if not row["met"]]
    for row in missed:
        measured = f"{row['measured_ms']:.1f} ms of at most {row['required_ms']:g} ms"
        console.print(f"Missed: {row['query']}, {row['figure']}: {measured}.", style="red", markup=False)
    if not missed:
        console.print(f"All queries: median and p99 at most {summary['requirements'][0]['required_ms']:g} ms.")


def show_console(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the times of each page, and a sentence for each requirement that is missed."""
    console = console if console is not None else new_console()
    names = ("median_ms", "p99_ms", "longest_ms", "first_ms", "required_ms")
    rows = [[page, *(f"{times[name]:.1f}" for name in names)] for page, times in summary["figures"].items()]
    title = f"Review, {summary['store']}, {summary['verdicts']:,} verdicts, {summary['items']:,} items"
    print_table(console, title, ["page", "median ms", "p99 ms", "longest ms", "first ms", "required ms"], rows)
    console.print(f"The items were built in {summary['building_s']:.1f} s.")
    for page, reason in summary["left_out"].items():
        console.print(f"Left out: {page}: {reason}.", markup=False)
    for row in summary["requirements"]:
        if not row["met"]:
            measured = f"{row['measured_ms']:.1f} ms of at most {row['required_ms']:g} ms"
            console.print(f"Missed: {row['page']}: {measured}.", style="red", markup=False)


def show_retention(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the times of ingest with and without retention, and a sentence for a requirement that is missed."""
    console = console if console is not None else new_console()
    figures = summary["figures"]
    rows = [
        [
            title,
            str(figures[key]["requests"]),
            *(f"{figures[key][name]:.1f}" for name in ("median_ms", "p99_ms", "longest_ms")),
        ]
        for title, key in (("alone", "alone"), ("beside retention", "beside_retention"))
    ]
    print_table(
        console, f"Ingest, {summary['store']}", ["ingest", "requests", "median ms", "p99 ms", "longest ms"], rows
    )
    removed, kept = figures["removed"], figures["kept_for_labels"]
    counts = f"{removed['payloads']:,} payloads and {removed['verdicts']:,} verdicts"
    sizes = f"{figures['mb_before']:,.0f} MB before and {figures['mb_after']:,.0f} MB after"
    console.print(f"Deleted {counts} in {figures['retention_s']:.0f} s, kept {kept} old samples with a label.")
    console.print(f"Size of the database: {sizes}.")
    for row in summary["requirements"]:
        if not row["met"]:
            measured = f"{row['measured_ms']:.1f} ms of at most {row['required_ms']:g} ms"
            console.print(f"Missed: {row['what']}: {measured}.", style="red", markup=False)

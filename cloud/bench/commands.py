"""Commands `vedette bench cloud ...`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from shared.cli import CommandTree
from shared.errors import SettingsError

JSON = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result or the error to this file.")
]
_NAMES = ("8 rows", "256 rows", "8 windows", "8 JPEGs")


def add_commands(tree: CommandTree) -> None:
    """Add the sub-group `cloud` of the benchmarks to the command tree."""
    group = typer.Typer(
        help="Measure the service against its limits.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        suggest_commands=False,
    )
    tree.group("bench").add_typer(group, name="cloud")
    group.command(epilog="Example:  vedette bench cloud ingest --rounds 5 --json ingest.json")(ingest)


def ingest(
    seconds: Annotated[float, typer.Option(min=0.2, max=600, help="Length of each turn in seconds.")] = 4.0,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Turns of each side of a ratio.")] = 5,
    clients: Annotated[int, typer.Option(min=1, max=64, help="Number of devices that send at once.")] = 16,
    samples: Annotated[
        str, typer.Option(metavar="A,B", help=f"Requests to measure, from {', '.join(_NAMES)}.")
    ] = ",".join(_NAMES),
    json_path: JSON = None,
) -> None:
    """Measure ingest with durable commit against a bare gRPC echo of the same messages, in alternating turns.

    Both sides are processes of their own behind the same mutual TLS, and use the cores that this process may use (set
    them with taskset). The analysis of the service is held, so that ingest alone is measured. Use an idle machine.
    """
    from cloud.bench.ingest import IngestOptions, run_ingest_benchmark
    from cloud.bench.report import show_ingest
    from cloud.evaluation.result_files import measure_and_write
    from cloud.training.progress import shown_progress

    names = _chosen(samples)
    command = f"vedette bench cloud ingest --seconds {seconds:g} --rounds {rounds} --clients {clients}"

    def measure() -> dict[str, Any]:
        with shown_progress() as progress:
            return run_ingest_benchmark(IngestOptions(seconds, rounds, clients, names, command), progress)

    show_ingest(measure_and_write(measure, json_path))


def _chosen(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or any(name not in _NAMES for name in names):
        raise SettingsError(f"--samples {text}: give some of {', '.join(_NAMES)}.")
    return names

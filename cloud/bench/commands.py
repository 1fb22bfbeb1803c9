"""Commands `vedette bench cloud ...`."""

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cloud.evaluation.command_options import JSON
from shared.cli import CommandTree
from shared.errors import SettingsError

StoreUrl = Annotated[
    str, typer.Option(metavar="URL", help="Empty PostgreSQL database to measure; by default a SQLite file.")
]
LARGE_IMAGE_SIDE = 8192  # pixels
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
    tree.group("bench").command(epilog="Example:  vedette bench console --verdicts 100000 --json console.json")(console)
    group.command(epilog="Example:  vedette bench cloud ingest --rounds 5 --json ingest.json")(ingest)
    group.command(epilog="Example:  vedette bench cloud analysis --rounds 5 --json analysis.json")(analysis)
    group.command(epilog="Example:  vedette bench cloud replicas --rounds 5 --json replicas.json")(replicas)
    group.command(
        epilog="Example:  vedette bench cloud queries --verdicts 1000000 "
        "--store-url postgresql://vedette@db.example/bench --json queries.json"
    )(queries)
    group.command(epilog="Example:  vedette bench cloud retention --rows 100000 --json retention.json")(retention)
    group.command(
        epilog="Examples:  vedette bench cloud fleet --hostile 0.2 --json fleet.json  |  "
        "vedette bench cloud fleet --devices 50 --minutes 1"
    )(fleet)


def ingest(
    seconds: Annotated[float, typer.Option(min=0.2, max=600, help="Length of each turn in seconds.")] = 4.0,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Turns of each side of a ratio.")] = 5,
    clients: Annotated[int, typer.Option(min=1, max=64, help="Number of devices that send at once.")] = 16,
    samples: Annotated[
        str, typer.Option(metavar="A,B", help=f"Requests to measure, from {', '.join(_NAMES)}.")
    ] = ",".join(_NAMES),
    store_url: StoreUrl = "",
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
            return run_ingest_benchmark(IngestOptions(seconds, rounds, clients, names, store_url, command), progress)

    show_ingest(measure_and_write(measure, json_path))


def analysis(
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Turns of each side of a ratio.")] = 5,
    share: Annotated[
        float, typer.Option(min=0.01, max=10, help="Scale samples and training steps (0.1 = quick look).")
    ] = 1.0,
    precision: Annotated[
        str, typer.Option(metavar="fp32|bf16", help="Precision of the networks on both sides; bf16 after its check.")
    ] = "fp32",
    json_path: JSON = None,
) -> None:
    """Measure verdicts a second against a bare loop over the same networks at its best batch size, in turns.

    The service's side reads waiting samples from a store, and stores the verdicts. Use an idle machine.
    """
    from cloud.bench.analysis import AnalysisBenchOptions, run_analysis_benchmark
    from cloud.bench.report import show_analysis
    from cloud.evaluation.result_files import measure_and_write
    from cloud.training.progress import shown_progress

    if precision not in ("fp32", "bf16"):
        raise SettingsError(f"--precision {precision}: give fp32 or bf16.")
    command = f"vedette bench cloud analysis --rounds {rounds} --share {share:g}"
    command += " --precision bf16" if precision == "bf16" else ""
    chosen: Literal["fp32", "bf16"] = "bf16" if precision == "bf16" else "fp32"

    def measure() -> dict[str, Any]:
        with shown_progress() as progress:
            return run_analysis_benchmark(AnalysisBenchOptions(rounds, share, command, chosen), progress)

    show_analysis(measure_and_write(measure, json_path))


def replicas(
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Turns of each side.")] = 5,
    share: Annotated[
        float, typer.Option(min=0.01, max=10, help="Scale samples and training steps (0.1 = quick look).")
    ] = 1.0,
    json_path: JSON = None,
) -> None:
    """Measure the analysis in this process, in one replica and in two on local Ray clusters, in turns.

    Needs the extra scale. Use an idle machine with at least 3 cores.
    """
    from cloud.bench.replicas import ReplicaBenchOptions, run_replica_benchmark
    from cloud.bench.report import show_replicas
    from cloud.evaluation.result_files import measure_and_write
    from cloud.training.progress import shown_progress

    command = f"vedette bench cloud replicas --rounds {rounds} --share {share:g}"

    def measure() -> dict[str, Any]:
        with shown_progress() as progress:
            return run_replica_benchmark(ReplicaBenchOptions(rounds, share, command), progress)

    show_replicas(measure_and_write(measure, json_path))


def fleet(
    devices: Annotated[int, typer.Option(min=1, max=20_000, help="Number of simulated devices.")] = 500,
    rate: Annotated[float, typer.Option(min=0.01, max=1000, help="Samples a second of each honest device.")] = 2.0,
    minutes: Annotated[float, typer.Option(min=0.01, max=24 * 60, help="Minutes that the devices send.")] = 10.0,
    hostile: Annotated[
        float,
        typer.Option(min=0.0, max=0.9, help="Share of hostile devices in a second run; 0 for no second run."),
    ] = 0.0,
    attacks: Annotated[
        str, typer.Option(metavar="A,B", help='Attacks of the hostile devices, such as "greedy,large images"; all.')
    ] = "",
    clients: Annotated[int, typer.Option(min=1, max=64, help="Processes that simulate the honest devices.")] = 2,
    drain: Annotated[
        float, typer.Option(min=1, max=3600, help="Seconds to wait for the last verdicts after the run.")
    ] = 60.0,
    json_path: JSON = None,
) -> None:
    """Measure a service with many devices: nothing lost, the times to acknowledgement and verdict, memory, processor.

    Each device has a certificate and a connection of its own, sends rows at its rate and follows its verdicts. With
    --hostile, a second run replaces a share of the devices by hostile ones, and the honest ones are compared. Service
    and devices share the cores that this process may use (set them with taskset).
    """
    from cloud.bench.fleet.report import show_fleet
    from cloud.bench.fleet.run import FleetOptions, run_fleet_benchmark
    from cloud.evaluation.result_files import measure_and_write
    from cloud.training.progress import shown_progress

    command = f"vedette bench cloud fleet --devices {devices} --rate {rate:g} --minutes {minutes:g}"
    command += f" --hostile {hostile:g}" if hostile else ""
    chosen = tuple(name.strip() for name in attacks.split(",") if name.strip())
    command += f" --attacks {shlex.quote(','.join(chosen))}" if chosen else ""
    options = FleetOptions(devices, rate, 60 * minutes, hostile, clients, drain, LARGE_IMAGE_SIDE, command, chosen)

    def measure() -> dict[str, Any]:
        with shown_progress() as progress:
            return run_fleet_benchmark(options, progress)

    show_fleet(measure_and_write(measure, json_path))


def queries(
    verdicts: Annotated[int, typer.Option(min=1000, help="Number of verdicts to generate.")] = 10_000_000,
    repeats: Annotated[int, typer.Option(min=1, max=10_000, help="Calls of each query.")] = 100,
    store_url: StoreUrl = "",
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the SQLite file here, or measure the one that an earlier run kept."),
    ] = None,
    json_path: JSON = None,
) -> None:
    """Measure each query of the console and its API on a generated store.

    The store is made first: 10 million verdicts take minutes and about 9 GB of disk. A store that an earlier run made
    in the database or folder is measured again as it is.
    """
    from cloud.bench.queries import QueryOptions, run_query_benchmark
    from cloud.bench.store_report import show_queries
    from cloud.evaluation.result_files import measure_and_write
    from cloud.training.progress import shown_progress

    command = f"vedette bench cloud queries --verdicts {verdicts} --repeats {repeats}"

    def measure() -> dict[str, Any]:
        with shown_progress() as progress:
            return run_query_benchmark(QueryOptions(store_url, folder, verdicts, repeats, command), progress)

    show_queries(measure_and_write(measure, json_path))


def console(
    verdicts: Annotated[int, typer.Option(min=1000, help="Number of verdicts to generate.")] = 1_000_000,
    repeats: Annotated[int, typer.Option(min=1, max=10_000, help="Calls of each page.")] = 50,
    store_url: StoreUrl = "",
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the SQLite file here, or measure the one that an earlier run kept."),
    ] = None,
    json_path: JSON = None,
) -> None:
    """Measure the review page of the console on a generated store: inbox, filters, next item, decision.

    The store is made first, and the review items are built from it. Use an idle machine.
    """
    from cloud.bench.console import ConsoleOptions, run_console_benchmark
    from cloud.bench.store_report import show_console
    from cloud.evaluation.result_files import measure_and_write
    from cloud.training.progress import shown_progress

    command = f"vedette bench console --verdicts {verdicts} --repeats {repeats}"

    def measure() -> dict[str, Any]:
        with shown_progress() as progress:
            return run_console_benchmark(ConsoleOptions(store_url, folder, verdicts, repeats, command), progress)

    show_console(measure_and_write(measure, json_path))


def retention(
    rows: Annotated[int, typer.Option(min=100, help="Number of old samples that retention deletes.")] = 1_000_000,
    payload_bytes: Annotated[int, typer.Option(min=1, max=2**24, help="Size of each payload in bytes.")] = 1024,
    store_url: StoreUrl = "",
    json_path: JSON = None,
) -> None:
    """Measure how long ingest waits at most while retention deletes old payloads and verdicts.

    The store is made first: a million rows take minutes and about 3 GB of disk.
    """
    from cloud.bench.retention import RetentionOptions, run_retention_benchmark
    from cloud.bench.store_report import show_retention
    from cloud.evaluation.result_files import measure_and_write
    from cloud.training.progress import shown_progress

    command = f"vedette bench cloud retention --rows {rows} --payload-bytes {payload_bytes}"

    def measure() -> dict[str, Any]:
        with shown_progress() as progress:
            return run_retention_benchmark(RetentionOptions(store_url, rows, payload_bytes, command), progress)

    show_retention(measure_and_write(measure, json_path))


def _chosen(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or any(name not in _NAMES for name in names):
        raise SettingsError(f"--samples {text}: give some of {', '.join(_NAMES)}.")
    return names

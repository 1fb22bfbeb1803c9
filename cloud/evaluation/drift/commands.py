"""Command `vedette bench drift`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cloud.evaluation.result_files import measure_and_write
from shared.errors import SettingsError, VedetteError


def drift(
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", envvar="VEDETTE_BENCH_DATA", help="Folder with adbench, smd and tep."),
    ] = None,
    families: Annotated[str, typer.Option(metavar="A,B", help="Streams to run.")] = "adbench,smd,tep",
    effort: Annotated[float, typer.Option(min=0.01, max=1.0, help="Scale training steps.")] = 0.2,
    quick: Annotated[
        bool, typer.Option("--quick", help="Score kNN and Isolation Forest only, without training.")
    ] = False,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the result or the error to this file.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="PAGE.md", help="Write the results as a Markdown page.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the scores of finished streams; by default $VEDETTE_HOME/bench."),
    ] = None,
) -> None:
    """Measure false alarms and recall on streams in file order, with and without adapting calibrations.

    Training takes minutes for each stream; its scores are kept in the work folder, so that later runs take seconds.
    """
    from cloud.evaluation.drift.benchmark import DriftBenchmarkOptions, run_drift_benchmark
    from cloud.evaluation.drift.page import drift_page, show_drift
    from cloud.training.progress import shown_progress
    from cloud.training.settings import TrainingSettings
    from shared.home import home_folder

    def measure() -> dict[str, Any]:
        if data is None:
            raise SettingsError("No data folder: give the folder of the data sets with --data.")
        options = DriftBenchmarkOptions(
            data,
            tuple(name.strip() for name in families.split(",") if name.strip()),
            work if work is not None else home_folder() / "bench",
            TrainingSettings(effort=effort),
            _command(families, effort, output, quick=quick),
            quick,
        )
        with shown_progress() as progress:
            return run_drift_benchmark(options, progress)

    summary = measure_and_write(measure, json_path, output, drift_page)
    show_drift(summary)
    if summary["failed"]:
        raise VedetteError(
            f"{len(summary['failed'])} of the streams failed; the means exclude them. See the list above."
        )


def _command(families: str, effort: float, output: Path | None, *, quick: bool) -> str:
    """Return the command line that repeats this run, without paths of this machine."""
    parts = [
        "vedette bench drift --data DATA",
        f"--families {families}",
        "--quick" if quick else f"--effort {effort:g}",
    ]
    return " ".join(parts + ([f"--output docs/benchmarks/{output.name}"] if output is not None else []))

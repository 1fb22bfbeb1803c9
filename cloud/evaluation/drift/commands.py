"""Command `vedette bench drift`."""

from typing import Annotated, Any

import typer

from cloud.evaluation.command_options import (
    DATA,
    EFFORT,
    JSON,
    OUTPUT,
    WORK,
    command_line,
    data_folder,
    end_on_failed,
    names_in,
    work_folder,
)
from cloud.evaluation.result_files import measure_and_write


def drift(
    data: DATA = None,
    families: Annotated[str, typer.Option(metavar="A,B", help="Streams to run.")] = "adbench,smd,tep",
    effort: EFFORT = 0.2,
    quick: Annotated[
        bool, typer.Option("--quick", help="Score kNN and Isolation Forest only, without training.")
    ] = False,
    json_path: JSON = None,
    output: OUTPUT = None,
    work: WORK = None,
) -> None:
    """Measure false alarms and recall on streams in file order, with and without adapting calibrations.

    The folder of the data sets holds adbench, smd or tep. Training takes minutes for each stream; its scores are kept
    in the work folder, so that later runs take seconds.
    """
    from cloud.evaluation.drift.benchmark import DriftBenchmarkOptions, run_drift_benchmark
    from cloud.evaluation.drift.page import drift_page, show_drift
    from cloud.training.progress import shown_progress
    from cloud.training.settings import TrainingSettings

    def measure() -> dict[str, Any]:
        trained = {"quick": True} if quick else {"effort": effort}
        options = DriftBenchmarkOptions(
            data_folder(data),
            names_in(families),
            work_folder(work),
            TrainingSettings(effort=effort),
            command_line("drift", output, data="DATA", families=families, **trained),
            quick,
        )
        with shown_progress() as progress:
            return run_drift_benchmark(options, progress)

    summary = measure_and_write(measure, json_path, output, drift_page)
    show_drift(summary)
    end_on_failed(summary, "streams")

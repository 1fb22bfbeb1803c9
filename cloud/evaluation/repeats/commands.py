"""Command `vedette bench repeats`."""

from typing import Any

from cloud.evaluation.command_options import (
    DATA,
    DATASETS,
    EFFORT,
    JSON,
    OUTPUT,
    command_line,
    data_folder,
    end_on_failed,
    names_in,
)
from cloud.evaluation.result_files import measure_and_write


def repeats(
    data: DATA = None,
    datasets: DATASETS = "",
    effort: EFFORT = 0.1,
    json_path: JSON = None,
    output: OUTPUT = None,
) -> None:
    """Measure the uploads that the memory of judged samples saves on streams with recurring anomalies."""
    from cloud.evaluation.repeats.benchmark import RepeatsBenchmarkOptions, run_repeats_benchmark
    from cloud.evaluation.repeats.page import repeats_page, show_repeats
    from cloud.training.progress import shown_progress

    def measure() -> dict[str, Any]:
        command = command_line("repeats", output, data="DATA", datasets=datasets, effort=effort)
        options = RepeatsBenchmarkOptions(data_folder(data), names_in(datasets), effort, command)
        with shown_progress() as progress:
            return run_repeats_benchmark(options, progress)

    result = measure_and_write(measure, json_path, output, repeats_page)
    show_repeats(result)
    end_on_failed(result, "streams")

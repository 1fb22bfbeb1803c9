"""Commands `vedette evaluate` and `vedette bench adbench|series|images|video|labels|edge|audit|repeats|drift`."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from cloud.evaluation.audits.commands import audit
from cloud.evaluation.command_options import (
    CONFIG,
    DATA,
    DATASETS,
    JOBS,
    JSON,
    OUTPUT,
    SEEDS,
    WORK,
    command_line,
    data_folder,
    end_on_failed,
    names_in,
    work_folder,
)
from cloud.evaluation.device.commands import edge
from cloud.evaluation.drift.commands import drift
from cloud.evaluation.repeats.commands import repeats
from cloud.evaluation.result_files import measure_and_write
from cloud.outputs import check_config_path, failure_as_json
from cloud.table_options import DATES, DECIMAL, DELIMITER, ENCODING, TIME_COLUMN
from shared.cli import CommandTree


@dataclass(frozen=True, slots=True)
class _Benchmark:
    """Benchmark on a collection of data sets: its name, help, examples, and default of --seeds."""

    name: str
    help: str
    epilog: str
    seeds: str = "1"


_BENCHMARKS = (
    _Benchmark(
        "adbench",
        "Run the table benchmark under the published ADBench protocol, on a folder of .npz files with X and y.",
        "Examples:  vedette bench adbench --data DATA --jobs 2 --json result.json --output adbench.md  |  "
        "vedette bench adbench --datasets glass,wine --seeds 1",
        seeds="5",
    ),
    _Benchmark(
        "series",
        "Run the series benchmark (VUS-PR) on a folder of .npz files with train, test and label.",
        "Example:  vedette bench series --data DATA --datasets machine-1-6 --seeds 0,1",
    ),
    _Benchmark(
        "images",
        "Run the image benchmark (image AUROC; pixel metrics with masks) on a folder of sets in the MVTec AD layout.",
        "Example:  vedette bench images --data DATA --datasets elpv --output images.md",
    ),
    _Benchmark(
        "video",
        "Run the video benchmark (frame AUROC) on a folder with train/, eval/ and a table of labels.",
        "Example:  vedette bench video --data DATA --datasets cctv_upcam",
    ),
    _Benchmark(
        "labels",
        "Count false alarms at equal recall after 0, 10, 20 and 50 labels, on tables with X and y and on series.",
        "Examples:  vedette bench labels --data DATA --config quick.toml --output labels.md  |  "
        "vedette bench labels --data DATA --datasets donors,machine-1-6 --json result.json",
    ),
)


def add_commands(tree: CommandTree) -> None:
    """Add the evaluation and benchmark commands to the command tree."""
    tree.root.command(
        epilog="Examples:  vedette evaluate pump.vedette readings.csv --plots plots/  |  "
        "vedette evaluate camera.vedette photos/ --json result.json  |  "
        "vedette evaluate pump.vedette unlabelled.parquet"
    )(evaluate)
    group = tree.group("bench")
    group.callback(
        epilog="Examples:  vedette bench adbench --data DATA --output adbench.md  |  "
        "vedette bench series --data DATA --datasets machine-1-6 --seeds 1  |  vedette bench images --help"
    )(_bench)
    for each in _BENCHMARKS:
        group.command(each.name, help=each.help, epilog=each.epilog)(_command_of(each))
    group.command(
        epilog="Examples:  vedette bench edge --quick  |  vedette bench edge --modality image --peer-python "
        "~/anomalib/bin/python --output edge.md  |  vedette bench edge --bundle pump.vedette --data readings.csv"
    )(edge)
    group.command(epilog="Example:  vedette bench audit --data DATA --json result.json --output audit.md")(audit)
    group.command(epilog="Example:  vedette bench repeats --data DATA --json result.json --output repeats.md")(repeats)
    group.command(epilog="Example:  vedette bench drift --data DATA --families adbench --output drift.md")(drift)


def evaluate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle archive to evaluate.")],
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Samples to evaluate, in a layout that vedette train reads.")
    ],
    json_path: JSON = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write plots to; by default none are drawn.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="PUBLIC.pem", help="Trusted public key; by default that of your signing key."),
    ] = None,
    label_column: Annotated[str, typer.Option(help="Column that marks anomalies; by default label, anomaly, ...")] = "",
    time_column: TIME_COLUMN = "",
    delimiter: DELIMITER = "",
    decimal: DECIMAL = "",
    encoding: ENCODING = "",
    dates: DATES = "",
    device: Annotated[str, typer.Option(help='Device of the analyzers: "auto", "cpu" or "cuda".')] = "auto",
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings in TOML, as for vedette train: how to read the data."),
    ] = None,
) -> None:
    """Evaluate every method of a bundle on data: artefacts, analyzers, fusion, baselines and router leaderboard.

    With labels, report how well each method finds the anomalies. Without labels, report the distribution of its scores
    and the share it flags. Give data that the bundle was not trained on.
    """
    with failure_as_json(json_path):
        check_config_path(config)
    from cloud.evaluation.evaluate import EvaluationRequest, evaluate_bundle
    from cloud.evaluation.report import show_evaluation
    from cloud.training.progress import shown_progress
    from cloud.training.settings import TrainingSettings
    from shared.home import trusted_key

    def measure() -> dict[str, Any]:
        table = {"delimiter": delimiter, "decimal": decimal, "encoding": encoding, "dates": dates}
        changes = {"data": {"label_column": label_column, "time_column": time_column, "table": table}}
        reading = TrainingSettings.load(config).changed(changes).data
        request = EvaluationRequest(bundle, data, reading, device, plots)
        with shown_progress() as progress:
            return evaluate_bundle(request, trusted_key(key), progress)

    show_evaluation(measure_and_write(measure, json_path))


def _command_of(benchmark: _Benchmark) -> Callable[..., None]:
    def command(
        data: DATA = None,
        datasets: DATASETS = "",
        seeds: SEEDS = benchmark.seeds,
        jobs: JOBS = 0,
        json_path: JSON = None,
        output: OUTPUT = None,
        work: WORK = None,
        config: CONFIG = None,
    ) -> None:
        _run(benchmark.name, data, datasets, seeds, jobs, json_path, output, work, config)

    return command


def _bench() -> None:
    """Measure detection on collections of data sets next to published results, and the agent on this machine."""


def _run(
    benchmark: str,
    data: Path | None,
    datasets: str,
    seeds: str,
    jobs: int,
    json_path: Path | None,
    output: Path | None,
    work: Path | None,
    config: Path | None,
) -> None:
    with failure_as_json(json_path):
        check_config_path(config)
    from cloud.evaluation import labels_page
    from cloud.evaluation.bench import BenchmarkOptions, parse_seeds, run_benchmark
    from cloud.evaluation.page import page
    from cloud.evaluation.report import show_benchmark
    from cloud.training.progress import shown_progress
    from cloud.training.settings import TrainingSettings

    def measure() -> dict[str, Any]:
        options = BenchmarkOptions(
            benchmark,
            data_folder(data),
            names_in(datasets),
            parse_seeds(seeds),
            jobs or (1 if benchmark in ("images", "video") else os.cpu_count() or 1),
            work_folder(work),
            TrainingSettings.load(config),
            command_line(benchmark, output, data="DATA", datasets=datasets, seeds=seeds, config=config),
        )
        with shown_progress() as progress:
            summary = run_benchmark(options, progress)
        return labels_page.with_ratios(summary) if benchmark == "labels" else summary

    if benchmark == "labels":
        summary = measure_and_write(measure, json_path, output, labels_page.page)
        labels_page.show(summary)
    else:
        summary = measure_and_write(measure, json_path, output, page)
        show_benchmark(summary)
    end_on_failed(summary, "sets")

"""`vedette evaluate` and `vedette bench adbench|series|images|video|edge`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from cloud.evaluation.device.commands import edge
from cloud.evaluation.result_files import measure_and_write
from shared.cli import CommandTree
from shared.errors import SettingsError, VedetteError

_DATA = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", envvar="VEDETTE_BENCH_DATA", help="Folder of the data sets."),
]
_DATASETS = Annotated[str, typer.Option(metavar="A,B", help="Only these sets, by name.")]
_JOBS = Annotated[int, typer.Option(min=0, help="Processes at once; 0: one for each core, for images one.")]
_JSON = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result here, also a failure.")]
_OUTPUT = Annotated[Path | None, typer.Option(metavar="PAGE.md", help="Write the results as a Markdown page.")]
_WORK = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where finished runs are kept, to resume from; by default $VEDETTE_HOME/bench."),
]
_CONFIG = Annotated[Path | None, typer.Option(metavar="FILE", help="Training settings in TOML, as of vedette train.")]
_SEEDS_HELP = "How many (5: seeds 0 to 4), or which (0,3,7)."


def add_commands(tree: CommandTree) -> None:
    """Hang evaluation and the benchmarks into the tree."""
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
    group.command(
        epilog="Examples:  vedette bench adbench --data DATA --jobs 2 --json result.json --output adbench.md  |  "
        "vedette bench adbench --datasets glass,wine --seeds 1"
    )(adbench)
    group.command(epilog="Example:  vedette bench series --data DATA --datasets machine-1-6 --seeds 0,1")(series)
    group.command(epilog="Example:  vedette bench images --data DATA --datasets elpv --output images.md")(images)
    group.command(epilog="Example:  vedette bench video --data DATA --datasets cctv_upcam")(video)
    group.command(
        epilog="Examples:  vedette bench edge --quick  |  vedette bench edge --modality image --peer-python "
        "~/anomalib/bin/python --output edge.md  |  vedette bench edge --bundle pump.vedette --data readings.csv"
    )(edge)


def evaluate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's archive.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="What to judge, in a layout that vedette train takes.")],
    json_path: _JSON = None,
    plots: Annotated[Path | None, typer.Option(metavar="DIR", help="Draw plots into this folder.")] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="PUBLIC.pem", help="The trusted public key; by default your signing key's."),
    ] = None,
    label_column: Annotated[str, typer.Option(help="Column that marks anomalies; by default label, anomaly, ...")] = "",
    time_column: Annotated[str, typer.Option(help="Column of time stamps; by default timestamp, time, ...")] = "",
    device: Annotated[str, typer.Option(help='Where the analyzers run: "auto", "cpu" or "cuda".')] = "auto",
) -> None:
    """Judge data with every method of a bundle: artefacts, analyzers, fusion, baselines and the router leaderboard.

    With labels, how well each method finds the anomalies; without, what it says of the data and flags. Give data that
    the bundle was not trained on.
    """
    from cloud.evaluation.evaluate import Request, evaluate_bundle
    from cloud.evaluation.report import show_evaluation
    from cloud.training.progress import shown_progress
    from shared.home import trusted_key

    def measure() -> dict[str, Any]:
        request = Request(bundle, data, label_column, time_column, device, plots)
        with shown_progress() as progress:
            return evaluate_bundle(request, trusted_key(key), progress)

    show_evaluation(measure_and_write(measure, json_path))


def adbench(
    data: _DATA = None,
    datasets: _DATASETS = "",
    seeds: Annotated[str, typer.Option(metavar="SEEDS", help=_SEEDS_HELP)] = "5",
    jobs: _JOBS = 0,
    json_path: _JSON = None,
    output: _OUTPUT = None,
    work: _WORK = None,
    config: _CONFIG = None,
) -> None:
    """Tables, under the protocol of the published figures: any folder of .npz files with X and y."""
    _run("adbench", data, datasets, seeds, jobs, json_path, output, work, config)


def series(
    data: _DATA = None,
    datasets: _DATASETS = "",
    seeds: Annotated[str, typer.Option(metavar="SEEDS", help=_SEEDS_HELP)] = "1",
    jobs: _JOBS = 0,
    json_path: _JSON = None,
    output: _OUTPUT = None,
    work: _WORK = None,
    config: _CONFIG = None,
) -> None:
    """Series, by VUS-PR: any folder of .npz files with train, test and label."""
    _run("series", data, datasets, seeds, jobs, json_path, output, work, config)


def images(
    data: _DATA = None,
    datasets: _DATASETS = "",
    seeds: Annotated[str, typer.Option(metavar="SEEDS", help=_SEEDS_HELP)] = "1",
    jobs: _JOBS = 0,
    json_path: _JSON = None,
    output: _OUTPUT = None,
    work: _WORK = None,
    config: _CONFIG = None,
) -> None:
    """Images, by image AUROC and pixels where there are masks: any folder of folders in the MVTec AD layout."""
    _run("images", data, datasets, seeds, jobs, json_path, output, work, config)


def video(
    data: _DATA = None,
    datasets: _DATASETS = "",
    seeds: Annotated[str, typer.Option(metavar="SEEDS", help=_SEEDS_HELP)] = "1",
    jobs: _JOBS = 0,
    json_path: _JSON = None,
    output: _OUTPUT = None,
    work: _WORK = None,
    config: _CONFIG = None,
) -> None:
    """Video, by frame AUROC: a folder with train/, eval/ and a table of labels."""
    _run("video", data, datasets, seeds, jobs, json_path, output, work, config)


def _bench() -> None:
    """Measure detection on whole collections of data sets, beside published figures, and the agent on this machine."""


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
    from cloud.evaluation.bench import BenchmarkOptions, parse_seeds, run_benchmark
    from cloud.evaluation.page import page
    from cloud.evaluation.report import show_benchmark
    from cloud.training.progress import shown_progress
    from cloud.training.settings import TrainingSettings
    from shared.home import home_folder

    def measure() -> dict[str, Any]:
        plan = BenchmarkOptions(
            benchmark,
            _data_folder(data),
            tuple(name.strip() for name in datasets.split(",") if name.strip()),
            parse_seeds(seeds),
            jobs or (1 if benchmark in ("images", "video") else os.cpu_count() or 1),
            work if work is not None else home_folder() / "bench",
            TrainingSettings.load(config),
            _command(benchmark, datasets, seeds, config, output),
        )
        with shown_progress() as progress:
            return run_benchmark(plan, progress)

    summary = measure_and_write(measure, json_path, output, page)
    show_benchmark(summary)
    if summary["failed"]:
        raise VedetteError(f"{len(summary['failed'])} of the sets failed and stand in no mean: see the list above.")


def _data_folder(given: Path | None) -> Path:
    """Return the folder of the data sets; raise SettingsError if none is named or it does not exist."""
    if given is None:
        raise SettingsError("No data folder. Name the one with the data sets with --data.")
    if not given.is_dir():
        raise SettingsError(f"{given}: no such folder. Name the one with the data sets with --data.")
    return given


def _command(benchmark: str, datasets: str, seeds: str, config: Path | None, output: Path | None) -> str:
    """How to make these results again, without the paths of this machine."""
    parts = ["vedette bench", benchmark, "--data DATA"]
    parts += [f"--datasets {datasets}"] if datasets else []
    parts += [f"--seeds {seeds}"]
    parts += [f"--config {config.name}"] if config is not None else []
    parts += [f"--output docs/benchmarks/{output.name}"] if output is not None else []
    return " ".join(parts)

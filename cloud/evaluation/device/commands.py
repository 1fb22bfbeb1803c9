"""Command `vedette bench edge`."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from cloud.evaluation.command_options import JSON, OUTPUT, command_line, names_in
from cloud.evaluation.device.requirements import MODALITIES, VECTORS_AND_IMAGES
from cloud.evaluation.result_files import measure_and_write
from shared.errors import SettingsError
from shared.modality import Modality

QUICK_TURN_S = 0.5


def edge(
    modality: Annotated[
        str, typer.Option(metavar="A,B", help=f"Screeners to measure, from {', '.join(MODALITIES)}.")
    ] = ",".join(VECTORS_AND_IMAGES),
    windows: Annotated[
        str, typer.Option(metavar="TxC,TxC", help="Windows of series, as time points x channels; overrides --config.")
    ] = "16x8,32x38",
    bundle: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Bundle to measure; by default small bundles are trained.")
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="DATA", help="File or folder of samples for --bundle.")] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="PUBLIC.pem", help="Public key of --bundle; by default that of your signing key."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Turns of each side of a ratio.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="Length of each turn in seconds.")] = 4.0,
    quick: Annotated[bool, typer.Option("--quick", help="One round of half a second, as a smoke test.")] = False,
    peer_python: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Python of an environment with anomalib, OpenVINO and ONNX, to measure the peer."
        ),
    ] = None,
    json_path: JSON = None,
    output: OUTPUT = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Training settings in TOML for the small bundles.")
    ] = None,
) -> None:
    """Measure the agent's throughput, memory, start time and routing cost on this machine against the limits.

    Each comparison is a ratio of alternating turns within this run, on the cores that this process may use (set them
    with taskset). Use an idle machine.
    """
    from cloud.evaluation.device.benchmark import EdgeBenchmarkOptions, run_edge_benchmark
    from cloud.evaluation.device.page import edge_page, show_edge
    from cloud.training.progress import shown_progress

    def measure() -> dict[str, Any]:
        options = EdgeBenchmarkOptions(
            modalities=_modalities(modality),
            windows=_windows(windows),
            bundle=bundle,
            data=data,
            key=key,
            rounds=1 if quick else rounds,
            seconds=QUICK_TURN_S if quick else seconds,
            is_quick=quick,
            peer_python=peer_python,
            config=config,
            command=_command_line(modality, windows, bundle, rounds, seconds, quick, peer_python, config, output),
        )
        with shown_progress() as progress:
            return run_edge_benchmark(options, progress)

    show_edge(measure_and_write(measure, json_path, output, edge_page))


def _modalities(text: str) -> tuple[Modality, ...]:
    names = names_in(text)
    unknown = [name for name in names if name not in MODALITIES]
    if unknown or not names:
        raise SettingsError(f"--modality {text}: give some of {', '.join(MODALITIES)}.")
    return tuple(dict.fromkeys(Modality(name) for name in names))


def _windows(text: str) -> tuple[tuple[int, int], ...]:
    from shared.preprocessing.series import MAX_WINDOW_VALUES

    sizes = [re.fullmatch(r"(\d+)x(\d+)", size.strip()) for size in text.split(",")]
    windows = tuple(dict.fromkeys((int(size[1]), int(size[2])) for size in sizes if size is not None))
    are_usable = all(length > 1 and 0 < length * channels <= MAX_WINDOW_VALUES for length, channels in windows)
    if None in sizes or not are_usable:
        raise SettingsError(
            f"--windows {text}: give sizes such as 16x8,32x38, each of two time points or more and at most "
            f"{MAX_WINDOW_VALUES} values."
        )
    return windows


def _command_line(
    modality: str,
    windows: str,
    bundle: Path | None,
    rounds: int,
    seconds: float,
    quick: bool,
    peer_python: Path | None,
    config: Path | None,
    output: Path | None,
) -> str:
    """Return the command line that repeats this run, without paths of this machine."""
    samples = {"modality": modality, "windows": windows} if bundle is None else {"bundle": bundle, "data": "DATA"}
    turns = {"quick": True} if quick else {"rounds": rounds, "seconds": seconds}
    peer = "PEER/bin/python" if peer_python is not None else None
    return command_line("edge", output, **samples, **turns, peer_python=peer, config=config)

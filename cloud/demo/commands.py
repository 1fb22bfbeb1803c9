"""Command `vedette demo`."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from cloud.outputs import check_output_path, write_failure, write_interruption, write_json
from shared.cli import CommandTree
from shared.errors import SettingsError, VedetteError
from shared.supervision import stoppable

MIN_SECONDS = 20.0


def add_commands(tree: CommandTree) -> None:
    """Add the command to the tree."""
    tree.root.command(
        epilog="Examples:  vedette demo  |  vedette demo --headless --seconds 120 --json out.json  |  "
        "vedette demo --images my-photos/ --effort 1  |  vedette demo --series readings.csv --no-federated  |  "
        "vedette demo --video belt.mp4"
    )(demo)


def demo(
    seconds: Annotated[float, typer.Option(help="Seconds the devices screen.", min=MIN_SECONDS)] = 120.0,
    headless: Annotated[bool, typer.Option("--headless", help="Plain lines instead of a live table.")] = False,
    json_path: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the summary here.")] = None,
    federated: Annotated[bool, typer.Option(help="Run one federated round while the devices screen.")] = True,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Your own good images for the camera, as a flat folder or in the MVTec AD layout."
        ),
    ] = None,
    series: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your own readings (CSV, Parquet, NPZ) for the sensor."),
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Your own video for the camera: train on its first 60 %, screen clips of the rest.",
        ),
    ] = None,
    effort: Annotated[
        float,
        typer.Option(min=0.01, max=1.0, help="Scale the training steps, also those of the round (0.2 = quick look)."),
    ] = 0.5,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep state and logs here. Default: a temporary folder."),
    ] = None,
) -> None:
    """Run the whole system on this machine on real data: train, screen, forward, judge, one federated round."""
    # Read at the import of PyTorch. Threads that spin while they wait cost ten times the processor time of the work, if
    # others use the processor: 15 instead of 1.2 s to score 49 images.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cloud.demo.run import Demo, DemoOptions

    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise SettingsError(f"{folder}: not empty. Give --folder a new folder.")
    if images is not None and video is not None:
        raise SettingsError("--images and --video are both for the camera: give one of them.")
    check_output_path(json_path)
    work = folder.absolute() if folder is not None else Path(tempfile.mkdtemp(prefix="vedette-demo-"))
    os.environ["VEDETTE_HOME"] = str(work / "home")  # signing key of the demo, also for this process

    kept = False

    def keep(summary: dict[str, Any]) -> None:
        nonlocal kept
        kept = True
        write_json(json_path, summary)

    try:
        with stoppable():
            Demo(DemoOptions(seconds, headless, federated, effort, images, series, video), work).run(keep)
    except KeyboardInterrupt:
        if not kept:
            write_interruption(json_path)
        typer.echo(f"Stopped. State and logs are in {work}.", err=True)
        raise typer.Exit(130) from None
    except VedetteError as error:
        if not kept:
            write_failure(json_path, error)
        raise
    if folder is None:
        shutil.rmtree(work, ignore_errors=True)

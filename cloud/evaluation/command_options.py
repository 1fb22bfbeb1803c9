"""Options that benchmark commands share, and the command line that repeats a run."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cloud.outputs import check_output_folder
from shared.errors import SettingsError, VedetteError

DATA = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", envvar="VEDETTE_BENCH_DATA", help="Folder of the data sets."),
]
DATASETS = Annotated[str, typer.Option(metavar="A,B", help="Names of the data sets to run; by default all.")]
SEEDS = Annotated[
    str, typer.Option(metavar="SEEDS", help="Number of seeds (5: seeds 0 to 4) or a list of seeds (0,3,7).")
]
JOBS = Annotated[
    int, typer.Option(min=0, help="Number of worker processes (0: one per core, or 1 for images and video).")
]
EFFORT = Annotated[float, typer.Option(min=0.01, max=1, help="Scale training steps (0.1 = quick look).")]
JSON = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result or the error to this file.")
]
OUTPUT = Annotated[Path | None, typer.Option(metavar="PAGE.md", help="Write the results as a Markdown page.")]
WORK = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of finished runs, reused on resume; by default $VEDETTE_HOME/bench."),
]
CONFIG = Annotated[Path | None, typer.Option(metavar="FILE", help="Training settings in TOML, as for vedette train.")]


def data_folder(given: Path | None) -> Path:
    """Return the folder of the data sets; raise SettingsError if none is given."""
    if given is None:
        raise SettingsError("No data folder: give the folder of the data sets with --data.")
    return given


def work_folder(given: Path | None) -> Path:
    """Return the folder of finished runs, made if it is missing; raise SettingsError unless it can be written."""
    from shared.home import home_folder

    folder = given if given is not None else home_folder() / "bench"
    check_output_folder(folder, "--work")
    return folder


def names_in(text: str) -> tuple[str, ...]:
    """Return the names of a list such as `A,B`."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def command_line(benchmark: str, output: Path | None, **options: object) -> str:
    """Return the command line that repeats a run, without paths of this machine.

    `options`: values by name, with `_` for `-`. Files are named without their folders, numbers in their shortest form;
    True is a flag, and None, False and empty text are left out.
    """
    words = ["vedette", "bench", benchmark]
    for name, value in options.items():
        if value is None or value is False or value == "":
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(_text(value))
    words += ["--output", f"docs/benchmarks/{output.name}"] if output is not None else []
    return shlex.join(words)


def end_on_failed(summary: Mapping[str, Any], kind: str) -> None:
    """Raise VedetteError if data sets of a run failed; `kind`: their name in the message, such as "sets"."""
    if failed := summary["failed"]:
        raise VedetteError(f"{len(failed)} of the {kind} failed; the means exclude them. See the list above.")


def _text(value: object) -> str:
    if isinstance(value, Path):
        return value.name
    return f"{value:g}" if isinstance(value, float) else str(value)

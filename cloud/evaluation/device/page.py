"""Markdown page and terminal tables of the agent benchmark."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from cloud.evaluation.page import table
from shared.terminal import new_console, print_table

_INTRODUCTION = (
    "The agent is `vedette edge run` in a process of its own: it reads and decodes samples, prepares them, screens "
    "them, routes them by p-value, and commits forwarded samples to its spool on disk; its link is down.\n\n"
    "* **Bare engine**: OpenVINO's `benchmark_app` on the same INT8 artefact (for a series it includes the views of"
    " windows) with the same batch size, hint (throughput) and precision (f32 around the INT8 layers), and once "
    "more with its best batch size. Both sides of a ratio take turns on the same cores; the figure is the median "
    "over the rounds of the ratio within each.\n"
    "* **PyTorch** runs the modules that the artefact was exported from, in FP32, eager, on as many threads as "
    "there are cores; images at the best batch size of each side, vectors at 1.\n"
    "* **PaDiM** is anomalib's, exported to ONNX, with its request queue kept full at its best batch size, beside "
    "the agent from file to spool.\n"
    "* The buffer of accepted windows holds 64 instead of 4096, so it settles as soon as that of an agent that has "
    "run for long.\n"
    "* **Memory** (peak resident set; an agent releases pages of library code that only its start uses) and "
    "**start** are those of an agent with one bundle whose cache of compiled models is warm.\n"
    "* **Router and spool**: CPU time from p-values to the committed file, 5 % forwarded and 1 % audited.\n\n"
    "Small bundles are trained for the measurement on synthetic series and on crops of a photograph of bricks, "
    "which the agent then screens; speed does not depend on the weights."
)


def edge_page(summary: Mapping[str, Any]) -> str:
    """Return the page of a run from its JSON values."""
    machine = summary["machine"]
    made = (
        f"Made by `{summary['command']}` with Vedette {summary['version']} on {machine['cores']} "
        f"core{'s' if machine['cores'] != 1 else ''}, {machine['architecture']}, Python {machine['python']}, OpenVINO "
        f"{machine['openvino']}."
    )
    rows = [[row["what"], row["samples"], *_cells(row)] for row in summary["requirements"]]
    parts = ["# The agent: speed and size", _INTRODUCTION, made, "## Requirements"]
    parts.append(table(["figure", "samples", "required", "measured", "met"], rows))
    for kind, figures in summary["figures"].items():
        parts += [f"## {kind.capitalize()}", table(["figure", "value"], [list(row) for row in _flat(figures)])]
    return "\n\n".join(parts) + "\n"


def show_edge(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the requirements with the measurements."""
    console = console if console is not None else new_console()
    rows = [[row["what"], row["samples"], *_cells(row)] for row in summary["requirements"]]
    header = ["figure", "samples", "required", "measured", "met"]
    print_table(console, "Agent against requirements", header, rows, left=(0, 1))
    for kind, figures in summary["figures"].items():
        print_table(console, kind.capitalize(), ["figure", "value"], [list(row) for row in _flat(figures)])
    if summary["quick"]:
        console.print("One short round: a smoke test, not a measurement.", style="dim", markup=False)


def _cells(row: Mapping[str, Any]) -> tuple[str, str, str]:
    unit = f" {row['unit']}" if row["unit"] else ""
    required = f"at {row['at']} {row['required']:g}{unit}"
    if row["measured"] is None:
        return required, row["note"], ""
    return required, f"{_text(row['measured'])}{unit}", "yes" if row["met"] else "no"


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", _text(value)


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return " x ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"

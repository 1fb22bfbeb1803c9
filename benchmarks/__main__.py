"""Command line of the benchmarks: print figures, write them as JSON and as pages of docs/benchmarks.

python -m benchmarks --data DIR                       run all benchmarks
python -m benchmarks --data DIR diffusion_cost        run the named benchmarks
"""

import argparse
import importlib
import inspect
import json
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.data_folder import VARIABLE

NAMES = (
    "row_choices",
    "oddbench",
    "series_choices",
    "video_choices",
    "image_choices",
    "image_scale",
    "analysis_device",
    "adaptive_depth",
    "contamination",
    "diffusion_cost",
    "open_pages",
    "tracing",
)
PAGES = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"benchmarks to run: {', '.join(NAMES)} (default: all)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help=f"folder of the data sets (default: ${VARIABLE}; without it only packaged and generated data is used)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="run fewer tasks or samples where the benchmark supports it"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--write-pages", action="store_true", help="write docs/benchmarks/NAME.md")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; known: {', '.join(NAMES)}")
    if options.data is not None:
        if not options.data.is_dir():
            parser.error(f"{options.data}: no such folder")
        os.environ[VARIABLE] = str(options.data)
    results: dict[str, Any] = {}
    for name in options.names or NAMES:
        print(f"== {name}", flush=True)
        module = importlib.import_module(f"benchmarks.{name}")
        has_quick_run = "quick" in inspect.signature(module.run).parameters
        results[name] = module.run(quick=True) if options.quick and has_quick_run else module.run()
        print(table(results[name]), flush=True)
        if options.write_pages:
            write_page(name, str(module.__doc__), results[name], getattr(module, "draw_picture", None))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def table(figures: dict[str, Any]) -> str:
    """Return the figures as a Markdown table; nested groups become dotted names."""
    rows = [f"| {name} | {_text(value)} |" for name, value in _flat(figures)]
    return "\n".join(["| figure | value |", "|---|---|", *rows])


def write_page(
    name: str, about: str, figures: dict[str, Any], draw_picture: Callable[[dict[str, Any], Path], None] | None = None
) -> None:
    """Write the page of a benchmark, and its picture if `draw_picture` is given."""
    picture = PAGES / "images" / f"{name}.png"
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    made = f'Made by `make bench ARGS="{name} --data=DIR --write-pages"` on {datetime.now(UTC):%Y-%m-%d}, {machine}.'
    title = name.replace("_", " ").capitalize()
    shown = "" if draw_picture is None else f"![{title}](images/{picture.name})\n\n"
    page = f"# {title}\n\n{about.strip()}\n\n{made}\n\n{shown}{table(figures)}\n"
    picture.parent.mkdir(parents=True, exist_ok=True)
    if draw_picture is not None:
        draw_picture(figures, picture)
    (PAGES / f"{name}.md").write_text(page)


def _flat(figures: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in figures.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return rows


def _text(value: Any) -> str:
    return f"{value:,.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()

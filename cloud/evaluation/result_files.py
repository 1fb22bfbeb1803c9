"""Measurements whose result or error is written to files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloud.outputs import check_output_path, failure_as_json, write_json, write_output


def measure_and_write(
    measure: Callable[[], dict[str, Any]],
    json_path: Path | None,
    output: Path | None = None,
    page: Callable[[dict[str, Any]], str] = str,
) -> dict[str, Any]:
    """Run `measure`, write its result to the given files, and return it.

    The result goes to `json_path` as JSON and to `output` as the text that `page` makes of it. A VedetteError of
    `measure` is written to `json_path` and raised again. Raises SettingsError before the measurement if a file cannot
    be written.
    """
    with failure_as_json(json_path):
        check_output_path(output, "--output")
        result = measure()
    write_json(json_path, result)
    if output is not None:
        write_output(output, page(result))
    return result

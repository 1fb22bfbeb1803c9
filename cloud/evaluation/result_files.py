"""Measurements whose result or error is written to files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloud.outputs import check_output_path, end_interrupted, write_failure, write_json
from shared.errors import VedetteError


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
    for path, option in ((json_path, "--json"), (output, "--output")):
        check_output_path(path, option)
    try:
        result = measure()
    except VedetteError as error:
        write_failure(json_path, error)
        raise
    except KeyboardInterrupt:
        end_interrupted(json_path)
    write_json(json_path, result)
    if output is not None:
        output.write_text(page(result), encoding="utf-8")
    return result

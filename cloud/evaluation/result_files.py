"""A measurement with its results where they are wanted, also of a failure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloud.outputs import check_output_path, write_failure, write_json
from shared.errors import VedetteError


def measure_and_write(
    measure: Callable[[], dict[str, Any]],
    json_path: Path | None,
    output: Path | None = None,
    page: Callable[[dict[str, Any]], str] = str,
) -> dict[str, Any]:
    """What `measure` finds, written as JSON to `json_path` and by `page` as a page to `output`, where they are given.

    Raises the VedetteError of `measure`, after it was written in place of a result; SettingsError for a place where
    nothing can be written, before anything is measured.
    """
    for path, option in ((json_path, "--json"), (output, "--output")):
        check_output_path(path, option)
    try:
        found = measure()
    except VedetteError as error:
        write_failure(json_path, error)
        raise
    write_json(json_path, found)
    if output is not None:
        output.write_text(page(found), encoding="utf-8")
    return found
